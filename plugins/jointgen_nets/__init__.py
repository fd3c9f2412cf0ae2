"""Trunks and discriminators: multilayer perceptrons, DCGAN-like convolutional networks, and residual ones.

References:
    AVB: Mescheder, Nowozin & Geiger, ICML 2017 (noise enters each convolution by an added linear map).
    DCGAN: Radford, Metz & Chintala, ICLR 2016 (strided convolutions, leaky ReLU, N(0, 0.02) weights).
    AS-VAE: Pu et al., NIPS 2017 (Xavier initialisation, dropout as the only regulariser).
    Spectral normalisation: Miyato et al., ICLR 2018.
    Residual networks: He et al., ECCV 2016 (pre-activation); Gulrajani et al., NIPS 2017 (as GANs use them).
"""

from __future__ import annotations

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the trunks and the critics' networks."""
    mlp = "Fully connected trunk over all its inputs, flattened and concatenated."
    registry.encoder("mlp", "jointgen_nets.mlp:MLP", paper="Kingma & Welling, ICLR 2014", summary=mlp)
    registry.decoder("mlp", "jointgen_nets.mlp:MLP", paper="Kingma & Welling, ICLR 2014", summary=mlp)
    registry.discriminator(
        "mlp",
        "jointgen_nets.mlp:MLPDiscriminator",
        paper="Goodfellow et al., NIPS 2014",
        summary="Fully connected; every variable after the first enters the first hidden layer by an added linear map.",
    )
    registry.encoder(
        "conv",
        "jointgen_nets.conv:ConvEncoder",
        paper="Radford et al., ICLR 2016; Mescheder et al., ICML 2017",
        summary="Strided convolutions over the image; noise and labels are added to every feature map.",
    )
    registry.decoder(
        "conv",
        "jointgen_nets.conv:ConvDecoder",
        paper="Radford et al., ICLR 2016; Odena et al., Distill 2016",
        summary="Doubles the size stage by stage, from vectors to an image of any size and any number of channels.",
    )
    registry.discriminator(
        "conv",
        "jointgen_nets.conv:ConvDiscriminator",
        paper="Radford et al., ICLR 2016",
        summary="Strided convolutions over the image; vectors enter the last hidden layer by an added linear map.",
    )
    registry.encoder(
        "resnet",
        "jointgen_nets.resnet:ResNetEncoder",
        paper="He et al., ECCV 2016",
        summary="Residual stages that halve an image of any size; labels and codes shift channels of every block.",
    )
    registry.decoder(
        "resnet",
        "jointgen_nets.resnet:ResNetDecoder",
        paper="He et al., ECCV 2016; Gulrajani et al., NIPS 2017",
        summary="Residual stages that double up to an image of any size; labels shift the channels of every block.",
    )
    registry.discriminator(
        "resnet",
        "jointgen_nets.resnet:ResNetDiscriminator",
        paper="Gulrajani et al., NIPS 2017; Miyato et al., ICLR 2018",
        summary="Residual stages without norm over an image of any size; vectors enter the hidden layer.",
    )
    switch = "A copy of another network for each class of a label; a row runs the copy of its class."
    for register, of in ((registry.encoder, "Encoder"), (registry.decoder, "Decoder")):
        register("switch", f"jointgen_nets.switch:Switch{of}", paper="Arora et al., ICML 2017", summary=switch)
    registry.discriminator(
        "switch", "jointgen_nets.switch:SwitchDiscriminator", paper="Arora et al., ICML 2017", summary=switch
    )
