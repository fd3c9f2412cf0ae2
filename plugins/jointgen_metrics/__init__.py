"""The shipped metrics and extractors. A figure that a model cannot have is absent with a reason, never zero."""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Registers the metrics and extractors."""
    _register_likelihood(registry)
    _register_reconstruction(registry)
    _register_codes(registry)
    _register_scores(registry)
    _register_extractors(registry)


def _register_likelihood(registry: Registrar) -> None:
    likelihood = "jointgen_metrics.likelihood"
    registry.metric(
        "elbo", f"{likelihood}:ELBO", paper="Kingma & Welling 2014, eq 3", summary="lower bound on log p(x)"
    )
    registry.metric(
        "bits_per_dim",
        f"{likelihood}:BitsPerDim",
        paper="Pu et al. 2017, section 5",
        summary="bits per dimension of quantised data",
    )
    registry.metric(
        "reports", f"{likelihood}:Reports", summary="the expressions that the objective asks to have reported"
    )
    registry.metric(
        "iwae",
        "jointgen_metrics.importance:IWAE",
        paper="Burda et al. 2016, eq 8",
        summary="importance-weighted lower bound on log p(x)",
        costly=True,
    )
    registry.metric(
        "exact", "jointgen_metrics.exact:Exact", summary="log p(x) itself, where it can be integrated", costly=True
    )
    registry.metric(
        "ais",
        "jointgen_metrics.annealing:AIS",
        paper="Neal 2001; Wu et al. 2017",
        summary="lower bound by annealed importance sampling with HMC",
        costly=True,
    )
    registry.metric(
        "bdmc",
        "jointgen_metrics.annealing:BDMC",
        paper="Grosse, Ghahramani & Adams 2015",
        summary="lower and upper bounds on log p(x) of the model's own draws",
        costly=True,
    )
    registry.metric(
        "critics",
        "jointgen_metrics.critics:Critics",
        summary="checks of learned log-ratios on rows that they have not seen",
    )


def _register_reconstruction(registry: Registrar) -> None:
    reconstruction = "jointgen_metrics.reconstruction"
    registry.metric(
        "rmse",
        f"{reconstruction}:RMSE",
        paper="Pu et al. 2017, table 2",
        summary="root mean squared error of reconstructions, 0 to 255",
    )
    registry.metric("psnr", f"{reconstruction}:PSNR", summary="peak signal-to-noise ratio of reconstructions")
    registry.metric(
        "ssim",
        "jointgen_metrics.similarity:SSIM",
        paper="Wang et al. 2004",
        summary="structural similarity of reconstructions",
    )
    registry.metric(
        "reconstruction",
        f"{reconstruction}:Reconstruction",
        paper="Pu et al. 2017, section 5",
        summary="reconstruction losses of x and z, which early stopping watches",
    )
    registry.metric(
        "code_rmse",
        f"{reconstruction}:CodeRMSE",
        paper="Pu et al. 2017, section 5",
        summary="error with which q finds codes again",
    )


def _register_codes(registry: Registrar) -> None:
    distances = "jointgen_metrics.distances"
    information = "jointgen_metrics.information"
    probes = "jointgen_metrics.probes"
    registry.metric(
        "sliced_wasserstein",
        f"{distances}:SlicedWasserstein",
        paper="Rabin et al. 2012",
        summary="sliced Wasserstein distance between draws of q(z) and p(z)",
    )
    registry.metric(
        "mmd",
        f"{distances}:MMD",
        paper="Gretton et al. 2012, eq 4",
        summary="squared maximum mean discrepancy between draws of q(z) and p(z)",
    )
    registry.metric(
        "active_units",
        "jointgen_metrics.codes:ActiveUnits",
        paper="Burda et al. 2016",
        summary="number of units of a code that vary with x",
    )
    registry.metric(
        "rate_distortion",
        f"{information}:RateDistortion",
        paper="Alemi et al. 2018",
        summary="rate and distortion, in nats",
    )
    registry.metric(
        "mutual_information",
        f"{information}:MutualInformation",
        paper="Hoffman & Johnson 2016",
        summary="mutual information of x and z under q, and KL(q(z) : p(z))",
        costly=True,
    )
    registry.metric(
        "classification",
        "jointgen_metrics.classification:Classification",
        paper="Kingma et al. 2014, section 4; Chen et al. 2016, section 7.1",
        summary="share of rows that q(y|x) classifies wrongly, clusters matched to classes",
    )
    registry.metric(
        "code_usage",
        "jointgen_metrics.codebook:CodeUsage",
        paper="van den Oord et al. 2017",
        summary="number of codes of a codebook that are used, and the perplexity of their use",
    )
    registry.metric(
        "probe_linear", f"{probes}:LinearProbe", summary="labels read from codes by logistic regression", costly=True
    )
    registry.metric(
        "probe_knn", f"{probes}:NeighborProbe", summary="labels read from the codes of nearest neighbours", costly=True
    )


def _register_scores(registry: Registrar) -> None:
    registry.metric(
        "is",
        "jointgen_metrics.inception_score:InceptionScore",
        paper="Salimans et al. 2016, section 4",
        summary="inception score: a classifier's certainty and variety over draws",
        costly=True,
    )
    registry.metric(
        "fid",
        "jointgen_metrics.frechet:FID",
        paper="Heusel et al. 2017, eq 6",
        summary="Frechet distance between features of draws and of data",
        costly=True,
    )
    registry.metric(
        "kid",
        "jointgen_metrics.kernel:KID",
        paper="Binkowski et al. 2018, section 4",
        summary="squared MMD between features of draws and of data, unbiased",
        costly=True,
    )
    registry.metric(
        "prdc",
        "jointgen_metrics.manifolds:PRDC",
        paper="Kynkaanniemi et al. 2019, Naeem et al. 2020",
        summary="precision, recall, density and coverage by nearest neighbours of features",
        costly=True,
    )


def _register_extractors(registry: Registrar) -> None:
    registry.extractor(
        "inception",
        "jointgen_metrics.inception:Inception",
        paper="Szegedy et al. 2016; the TensorFlow graph of 2015-12-05",
        summary="the features of published scores; weights from torch.hub's cache or a path",
    )
    registry.extractor(
        "dinov2",
        "jointgen_metrics.vision_transformers:DINOv2",
        paper="Oquab et al. 2024; as features of scores: Stein et al. 2023",
        summary="the class token of DINOv2; weights from torch.hub's cache or a path",
    )
    registry.extractor(
        "clip",
        "jointgen_metrics.vision_transformers:CLIP",
        paper="Radford et al. 2021; as features of scores: Kynkäänniemi et al. 2023",
        summary="the image features of CLIP; weights from torch.hub's cache or a path",
    )
    registry.extractor(
        "classifier",
        "jointgen_metrics.classifier:Classifier",
        summary="a small network, trained once on the run's own labelled data",
    )
    registry.extractor("values", "jointgen_metrics.values:Values", summary="the values themselves, as one vector")
