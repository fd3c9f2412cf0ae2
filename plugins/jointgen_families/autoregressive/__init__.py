"""Autoregressive families of images: every number given those before it, row by row, pixel by pixel, by channel.

References:
    PixelRNN, masks and the 256-way softmax: van den Oord, Kalchbrenner & Kavukcuoglu, ICML 2016.
    Gated PixelCNN, two stacks without a blind spot: van den Oord et al., NIPS 2016.
    PixelCNN++: Salimans, Karpathy, Chen & Kingma, ICLR 2017.
    Weight normalisation and its start from data: Salimans & Kingma, NIPS 2016.
    Sampling from caches: Ramachandran et al., arXiv:1704.06001, 2017.
"""
