"""Data sources: image sets, image folders, the user's own arrays, and toys whose densities are known."""

from __future__ import annotations

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the data sources."""
    _register_images(registry)
    _register_toys(registry)


def _register_images(registry: Registrar) -> None:
    registry.data(
        "digits",
        "jointgen_data.digits:Digits",
        paper="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI 1998 (bundled with scikit-learn)",
        summary="1797 handwritten digits, 8x8 grey in 17 levels; needs no files",
    )
    registry.data(
        "mnist",
        "jointgen_data.mnist:MNIST",
        paper="LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, 1998",
        summary="70,000 handwritten digits, 28x28 grey, binarised afresh on every read or dequantised",
    )
    registry.data(
        "fashion_mnist",
        "jointgen_data.mnist:FashionMNIST",
        paper="Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017",
        summary="70,000 articles of clothing, 28x28 grey, 10 classes, dequantised",
    )
    registry.data(
        "kmnist",
        "jointgen_data.mnist:KMNIST",
        paper="Clanuwat et al.: Deep Learning for Classical Japanese Literature, 2018",
        summary="70,000 cursive Japanese characters, 28x28 grey, 10 classes, binarised or dequantised",
    )
    registry.data(
        "cifar10",
        "jointgen_data.cifar10:CIFAR10",
        paper="Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
        summary="60,000 colour images, 32x32, 10 classes, dequantised",
    )
    registry.data(
        "svhn",
        "jointgen_data.svhn:SVHN",
        paper="Netzer et al.: Reading Digits in Natural Images with Unsupervised Feature Learning, 2011",
        summary="99,289 house numbers in colour, 32x32, 10 classes, dequantised",
    )
    registry.data(
        "celeba",
        "jointgen_data.celeba:CelebA",
        paper="Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015",
        summary="182,732 faces, cropped and resized, with 40 yes-or-no attributes as labels",
    )
    registry.data(
        "image_folder",
        "jointgen_data.image_folder:ImageFolder",
        paper="Deng et al.: ImageNet: A Large-Scale Hierarchical Image Database, CVPR 2009 (the layout)",
        summary="ROOT/train/<class>/*.jpeg and ROOT/val/<class>/*: images of any size and mode, cropped to a square",
    )
    registry.data(
        "huggingface",
        "jointgen_data.huggingface:HuggingFace",
        paper="Lhoest et al.: Datasets: A Community Library for Natural Language Processing, EMNLP 2021",
        summary="images of a Hugging Face data set, from the hub or local files; an extra, jointgen[datasets]",
    )
    registry.data(
        "prepared",
        "jointgen_data.prepared:PreparedImages",
        paper="none: what `jointgen data prepare` made of a folder of images",
        summary="images decoded and resized once by `jointgen data prepare`, mapped from disk; flips and random crops",
    )
    registry.data(
        "arrays",
        "jointgen_data.arrays:Arrays",
        paper="none: the user's own data",
        summary="your own .npy, .npz or .safetensors: images, vectors and labels",
    )
    registry.data(
        "in_python",
        "jointgen_data.given:Given",
        paper="none: the user's own data",
        summary="arrays or a data set of torch, given to jointgen.run(data=...)",
    )
    registry.data(
        "table",
        "jointgen_data.table:Table",
        paper="none: the user's own data",
        summary="a CSV or parquet file: numeric columns as one standardised vector, columns of categories as labels",
    )


def _register_toys(registry: Registrar) -> None:
    registry.data(
        "ring",
        "jointgen_data.toys:Ring",
        paper="Metz, Poole, Pfau, Sohl-Dickstein: Unrolled Generative Adversarial Networks, 2017, section 3.1",
        summary="Gaussians on a ring in the plane; log q(x) known",
    )
    registry.data(
        "grid",
        "jointgen_data.toys:Grid",
        paper="Dumoulin et al.: Adversarially Learned Inference, 2017 (mixture of 25 Gaussians)",
        summary="Gaussians on a square grid in the plane; log q(x) known",
    )
    registry.data(
        "moons",
        "jointgen_data.toys:Moons",
        paper="Pedregosa et al.: Scikit-learn, 2011 (make_moons), with evenly spaced centres",
        summary="two interleaved half circles of Gaussians in the plane; log q(x) known",
    )
    registry.data(
        "linear_gaussian",
        "jointgen_data.linear_gaussian:LinearGaussian",
        paper="Tipping, Bishop: Probabilistic Principal Component Analysis, 1999, section 3",
        summary="x = W z + b + s eps: log p(x), p(z|x), I(x;z) and the diagonal ELBO gap in closed form",
    )
