"""Broken recipes, and the message that each gets: the key path, the value, what is allowed, the nearest name.

Every row breaks a shipped recipe in one way. In an expected line "..." stands for anything, such as a list of names
that grows with every plugin. Anything but a ConfigError would be a traceback on somebody's terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from support.paths import QUICKSTART

from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.config.recipe import read_recipe, read_tables
from jointgen.config.schema import recipe_schema
from jointgen.config.shipped import shipped_recipes
from jointgen.config.toml import load_tables, read_toml
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry
from jointgen.training.check import check_run
from jointgen.training.setup import set_up_training

Overrides = list[str] | dict[str, Any]
Rows = dict[str, tuple[Overrides, list[str]]]


def compiled(registry: Registry, overrides: Overrides, path: str | Path = QUICKSTART) -> CompiledRecipe:
    return compile_recipe(read_recipe(path, overrides, registry=registry), registry)


def start(registry: Registry, overrides: Overrides, out: Path) -> None:
    """Begin a run, up to its first step."""
    set_up_training(check_run(read_recipe(QUICKSTART, overrides, registry=registry), registry), out)


def problems(registry: Registry, overrides: Overrides, path: str | Path = QUICKSTART) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compiled(registry, overrides, path)
    return caught.value.lines


def assert_says(lines: list[str], expected: list[str]) -> None:
    assert len(lines) == len(expected) and all(map(says, lines, expected)), "\n".join(["said:", *lines])


def says(line: str, expected: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), line) is not None


def expression(*more: str) -> list[str]:
    return ['objective.type="expression"', *more]


def maximize(text: str, *more: str) -> list[str]:
    return expression(f'objective.maximize="{text}"', *more)


@pytest.fixture(scope="module")
def schema(registry: Registry) -> Any:
    """A validator of the JSON Schema of recipes."""
    written = recipe_schema(registry)
    jsonschema.Draft7Validator.check_schema(written)
    return jsonschema.Draft7Validator(written)


# --- misspelt keys ---------------------------------------------------------------------------------------------------

TYPOS: Rows = {
    "table": (["trian.steps=5"], ["trian: unknown key; did you mean 'train'? (known: ...)"]),
    "key of data": (['data.observ="binarise"'], ["data.observ: unknown key; did you mean 'observe'? (known: ...)"]),
    "table of the encoder": (
        ['encoder.netwrok.type="mlp"'],
        ["encoder.netwrok: unknown key; did you mean 'network'? (known: family, input, network)"],
    ),
    "the type of a component": (
        ["data.typ=digits"],
        ["data.typ: unknown key; did you mean 'type'? (known: ...)"],
    ),
    "a key around the data": (
        ["data.rws=3"],
        ["data.rws: unknown key; did you mean 'rows'? (known: ...)"],
    ),
    "key of the encoder's network": (
        ["encoder.network.hiden=[3]"],
        ["encoder.network.hiden: unknown key; did you mean 'hidden'? (known: activation, dropout, hidden, init, type)"],
    ),
    "key of a family": (
        ['decoder.family.scal="global"'],
        ["decoder.family.scal: unknown key; did you mean 'scale'? (known: ...)"],
    ),
    "key of the prior": (["prior.sise=3"], ["prior.sise: unknown key; did you mean 'size'? (known: size, type)"]),
    "key of the discriminator": (
        ["discriminator.dropuot=0.1"],
        ["discriminator.dropuot: unknown key; did you mean 'dropout'? (known: ...)"],
    ),
    "key of the objective": (
        ["objective.lamda=3.0"],
        ["objective.lamda: unknown key; did you mean 'lambda'? (known: ...)"],
    ),
    "key of the critics": (
        ["objective.critic.penaltys=[]"],
        ["objective.critic.penaltys: unknown key; did you mean 'penalties'? (known: penalties, steps, view)"],
    ),
    "key of one in a list": (
        ['objective.critic.penalties=[{type="r1", weight=0.1}, {type="r1", wieght=0.1}]'],
        ["objective.critic.penalties[1].wieght: unknown key; did you mean 'weight'? (known: at, every, type, weight)"],
    ),
    "variable of a view": (
        ['objective.critic.view={y="mean"}'],
        ["objective.critic.view: no variable 'y'; known: x, z"],
    ),
    "key of train": (["train.stpes=5"], ["train.stpes: unknown key; did you mean 'steps'? (known: ...)"]),
    "key within train": (
        ["train.early_stopping.patiense=3"],
        ["train.early_stopping.patiense: unknown key; did you mean 'patience'? (known: patience, watch)"],
    ),
    "table of the optimizers": (
        ["optimizer.modle.lr=1e-3"],
        ["optimizer.modle: unknown key; did you mean 'model'? (known: critics, model, parts, stages)"],
    ),
    "key of an optimizer": (
        ["optimizer.model.weight_deccay=0.1"],
        ["optimizer.model.weight_deccay: unknown key; did you mean 'weight_decay'? (known: ...)"],
    ),
    "key of another optimizer": (
        ['optimizer.model={type="sgd", betas=[0.5, 0.9]}'],
        [
            "optimizer.model.betas: unknown key; known: decay_from, final, lr, momentum, nesterov, schedule, type, "
            "warmup, weight_decay"
        ],
    ),
    "optimizer of a part": (
        ["optimizer.parts.encoderr.lr=0.1"],
        [
            "optimizer.parts.encoderr: the objective trains no part of this name; did you mean 'encoder'? "
            "(known: T, decoder, encoder)"
        ],
    ),
    "optimizer of a part that nothing trains": (
        ["optimizer.parts.prior.lr=0.1"],
        ["optimizer.parts.prior: the objective trains no part of this name; known: T, decoder, encoder"],
    ),
    "stage of an optimizer": (
        ["optimizer.stages.asvea.model.lr=0.1", "objective.vae_first=0.5"],
        ["optimizer.stages.asvea: the objective has no stage of this name; did you mean 'asvae'? (known: asvae, vae)"],
    ),
    "optimizers that a stage has no use for": (
        [
            "objective.vae_first=0.5",
            "optimizer.stages.vae.critics.lr=0.1",
            "optimizer.stages.vae.parts.T.lr=0.1",
            "optimizer.stages.asvae.parts.encodr.lr=0.1",
        ],
        [
            "optimizer.stages.vae.critics: the stage trains no critic",
            "optimizer.stages.vae.parts.T: the stage trains no part of this name; known: decoder, encoder",
            "optimizer.stages.asvae.parts.encodr: the stage trains no part of this name; did you mean 'encoder'? "
            "(known: T, decoder, encoder)",
        ],
    ),
    "key of a stage's optimizer": (
        ["optimizer.stages.train.model.lrr=0.1"],
        ["optimizer.stages.train.model.lrr: unknown key; did you mean 'lr'? (known: ...)"],
    ),
    "key of a warm start": (
        ['train.init_from={run="runs/a", checkpont="best", parts=[]}'],
        [
            "train.init_from.parts: must name a part, or be left out, got none",
            "train.init_from.checkpont: unknown key; did you mean 'checkpoint'? (known: checkpoint, parts, run)",
        ],
    ),
    "key of eval": (["eval.row=10"], ["eval.row: unknown key; did you mean 'rows'? (known: ...)"]),
}


def test_the_schema_takes_every_shipped_recipe_as_it_is_and_resolved(schema: Any) -> None:
    refused = [
        f"{name}: {error.json_path}: {error.message}"
        for name, path in shipped_recipes().items()
        for tables in (read_toml(path), load_tables(path))
        for error in schema.iter_errors(tables)
    ]
    assert refused == []


@pytest.mark.parametrize("row", [row for row, (_, lines) in TYPOS.items() if "unknown key" in lines[0]])
def test_the_schema_finds_every_typo(row: str, schema: Any) -> None:
    changes, lines = TYPOS[row]
    path, _, key = lines[0].partition(": unknown key")[0].rpartition(".")
    (error,) = schema.iter_errors(read_tables(QUICKSTART, changes))
    assert error.json_path.removeprefix("$").lstrip(".") == path
    assert repr(key) in error.message


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"encoder.network.type": "mpl"}, "encoder.network.type"),
        ({"train.precision": "fp16"}, "train.precision"),
        ({"train.steps": "many"}, "train.steps"),
        ({"train.batch": 12.5}, "train.batch"),
        ({"eval.metrics": "elbo"}, "eval.metrics"),
        ({"optimizer.model.type": "adan"}, "optimizer.model.type"),
        ({"data.rows": "all"}, "data.rows"),
    ],
)
def test_the_schema_finds_wrong_values(changes: dict[str, Any], path: str, schema: Any) -> None:
    assert path in [
        error.json_path.removeprefix("$.") for error in schema.iter_errors(read_tables(QUICKSTART, changes))
    ]


def test_the_schema_asks_for_tables_unless_another_recipe_has_them(schema: Any) -> None:
    own, based = {"train": {"steps": 5}}, {"base": "other.toml", "train": {"steps": 5}}
    missing = [error.message for error in schema.iter_errors(own)]
    assert sorted(missing) == ["'data' is a required property", "'objective' is a required property"]
    assert [*schema.iter_errors(based)] == []


# --- unknown components ----------------------------------------------------------------------------------------------

COMPONENTS: Rows = {
    "encoder": (
        ['encoder.network.type="mpl"'],
        ["encoder.network.type: unknown encoder 'mpl'; did you mean 'mlp'? (known: conv, mlp, resnet, switch)"],
    ),
    "decoder": (
        ['decoder.network.type="cnov"'],
        ["decoder.network.type: unknown decoder 'cnov'; did you mean 'conv'? (known: conv, mlp, resnet, switch)"],
    ),
    "family": (
        ['decoder.family.type="gausian"'],
        ["decoder.family.type: unknown family 'gausian'; did you mean 'gaussian'? (known: ...)"],
    ),
    "prior": (['prior.type="nromal"'], ["prior.type: unknown prior 'nromal'; did you mean 'normal'? (known: ...)"]),
    "discriminator": (
        ['discriminator.type="transformer"'],
        ["discriminator.type: unknown discriminator 'transformer'; known: augmented, conv, mlp, resnet, switch"],
    ),
    "objective": (
        ['objective.type="as-vae"'],
        ["objective.type: unknown objective 'as-vae'; did you mean 'asvae'? (known: ...)"],
    ),
    "data": (['data.type="MNSIT"'], ["data.type: unknown data 'MNSIT'; did you mean 'mnist'? (known: ...)"]),
    "metric": (
        ['eval.metrics=[{type="elob"}]'],
        ["eval.metrics[0].type: unknown metric 'elob'; did you mean 'elbo'? (known: ...)"],
    ),
    "extractor": (
        ['eval.metrics=[{type="fid", extractor={type="inceptoin"}}]'],
        ["eval.metrics[0].extractor.type: unknown extractor 'inceptoin'; did you mean 'inception'? (known: ...)"],
    ),
    "penalty": (
        ['objective.critic.penalties=[{type="r2"}]'],
        ["objective.critic.penalties[0].type: unknown penalty 'r2'; ..."],
    ),
    "critic loss": (
        maximize("E[p(x)](f)", 'objective.scores.f={of="q(x) : p(x)", loss={type="wassertein"}}'),
        ["objective.scores.f.loss.type: unknown critic loss 'wassertein'; did you mean 'wasserstein'? (known: ...)"],
    ),
    "term": (
        maximize("E[q(x,z)](huber(x, p(x|z)))"),
        ["objective: unknown term 'huber'; known: imq, l1, l2, rbf"],
    ),
}

# --- wrong types -----------------------------------------------------------------------------------------------------

TYPES: Rows = {
    "string for true or false": (['data.labels="false"'], ["data.labels: expected true or false, got 'false'"]),
    "a residence that is none": (
        ["train.resident=alwyas"],
        ["train.resident: 'alwyas' is not allowed; did you mean 'always'? (known: always, auto, never)"],
    ),
    "number for true or false": (["train.deterministic=1"], ["train.deterministic: expected true or false, got 1"]),
    "fraction for a whole number": (["train.steps=1.9"], ["train.steps: expected a whole number, got 1.9"]),
    "true for a whole number": (["train.batch=true"], ["train.batch: expected a whole number, got true"]),
    "string for a whole number": (['train.batch="128"'], ["train.batch: expected a whole number, got '128'"]),
    "string for a number": (['optimizer.model.lr="1e-3"'], ["optimizer.model.lr: expected a number, got '1e-3'"]),
    "true for a number": (["objective.lambda=true"], ["objective.lambda: expected a number or a table, got true"]),
    "date for a number": (["train.steps=2020-01-01"], ["train.steps: expected a whole number, got 2020-01-01"]),
    "not a number": (["optimizer.model.lr=nan"], ["optimizer.model.lr: expected a finite number, got nan"]),
    "infinite": (["train.clip=inf"], ["train.clip: expected a finite number, got inf"]),
    "table for a number": (["train.steps={a=1}"], ["train.steps: expected a whole number, got a table"]),
    "number for a list": (["encoder.network.hidden=256"], ["encoder.network.hidden: expected a list, got 256"]),
    "string in a list": (
        ['encoder.network.hidden=[256, "x"]'],
        ["encoder.network.hidden[1]: expected a whole number, got 'x'"],
    ),
    "list that is too short": (
        ["optimizer.model.betas=[0.9]"],
        ["optimizer.model.betas: expected a list of 2, got [0.9]"],
    ),
    "list for a table": (
        ['encoder.network=["mlp"]'],
        ["encoder.network: expected a table with a type (known: conv, mlp, resnet, switch), got ['mlp']"],
    ),
    "string for a table": (["data=digits"], ["data: expected a table with a type (known: ...), got 'digits'"]),
    "number for a type": (
        ["encoder.network.type=3"],
        ["encoder.network.type: expected a string, got 3; known: conv, mlp, resnet, switch"],
    ),
    "number for an equation": (
        expression("objective.maximize=3"),
        ["objective.maximize: expected a string, got 3"],
    ),
}

# --- values out of range ---------------------------------------------------------------------------------------------

VALUES: Rows = {
    "no draws": (['eval.metrics=[{type="kid", samples=0}]'], ["eval.metrics[0].samples: must be >= 1, got 0"]),
    "a reading that is none": (
        ['eval.metrics=[{type="is", reading="mode"}]'],
        ["eval.metrics[0].reading: 'mode' is not allowed; known: mean, sample"],
    ),
    "no steps": (["train.steps=0"], ["train.steps: must be >= 1, got 0"]),
    "optimizer": (
        ['optimizer.model={type="admaw"}'],
        ["optimizer.model.type: unknown optimizer 'admaw'; did you mean 'adamw'? (known: ...)"],
    ),
    "optimizer that is no name": (
        ["optimizer.model={type=3}"],
        [
            "optimizer.model.type: expected a string, got 3; known: "
            "adagrad, adam, adamax, adamw, muon, nadam, radam, rmsprop, sgd"
        ],
    ),
    "weight below zero": (
        ["objective.w={start=-1, to=1, over=0.5}"],
        ["objective.w: must be >= 0, got start = -1.0"],
    ),
    "weight that two keys ramp": (
        ["objective.lambda={start=0, to=1, over=0.5}"],
        ["objective.ramp: lambda says itself how it changes; leave one of the two out"],
    ),
    "key of a weight": (
        ["objective.w={start=0, to=1, over=0.5, cycels=2}"],
        ["objective.w.cycels: unknown key; did you mean 'cycles'? (known: after, cycles, over, start, to)"],
    ),
    "tracker": (
        ['train.trackers=["tensorboard", "wandbb"]'],
        ["train.trackers[1]: unknown tracker 'wandbb'; did you mean 'wandb'? (known: ...)"],
    ),
    "schedule": (
        ['optimizer.model.schedule="cosin"'],
        ["optimizer.model.schedule: unknown schedule 'cosin'; did you mean 'cosine'? (known: ...)"],
    ),
    "constant rate that falls": (
        ['optimizer.model.schedule="constant"'],
        ["optimizer.model.schedule: 'constant' never falls, so leave out decay_from and final, or say 'linear'"],
    ),
    "warm-up in steps": (
        ["optimizer.critics.warmup=500"],
        ["optimizer.critics.warmup: must be between 0 and 1, got 500.0"],
    ),
    "Nesterov without momentum": (
        ['optimizer.critics={type="sgd", nesterov=true}'],
        ["optimizer.critics.nesterov: needs a momentum > 0"],
    ),
    "learning rate": (["optimizer.model.lr=-1e-3"], ["optimizer.model.lr: must be > 0, got -0.001"]),
    "betas": (["optimizer.critics.betas=[0.5, 1.5]"], ["optimizer.critics.betas: must be >= 0 and < 1, got 1.5"]),
    "weight decay": (["optimizer.model.weight_decay=-1.0"], ["optimizer.model.weight_decay: must be >= 0, got -1.0"]),
    "average": (["train.ema=1.5"], ["train.ema: must be >= 0 and < 1, got 1.5"]),
    "seed": (["seed=-1"], ["seed: must be >= 0, got -1"]),
    "seed beyond 64 bits": (["seed=99999999999999999999"], ["seed: has more than 64 bits"]),
    "format": (["format=2"], ["format: this version reads format 1, got 2"]),
    "compile": (
        ['train.compile="reduce_overhead"'],
        ["train.compile: 'reduce_overhead' is not allowed; did you mean 'reduce-overhead'? (known: ...)"],
    ),
    "precision": (
        ['train.precision="fp16"'],
        ["train.precision: 'fp16' is not allowed; did you mean 'fp64'? (known: bf16, fp32, fp64)"],
    ),
    "width of a layer": (["encoder.network.hidden=[8, 0]"], ["encoder.network.hidden: must be >= 1, got 0"]),
    "dropout": (["encoder.network.dropout=1.0"], ["encoder.network.dropout: must be >= 0 and < 1, got 1.0"]),
    "size of the code": (["prior.size=0"], ["prior.size: must be a size >= 1 or a list of such, got 0"]),
    "scale": (
        ['decoder.family.scale="globl"'],
        ["decoder.family.scale: 'globl' is not allowed; did you mean 'global'? (known: ...)"],
    ),
    "scale at the start": (
        ["decoder.family.init_scale=1000.0"],
        ["decoder.family.init_scale: must lie in exp([min_log_scale, max_log_scale]) = [0.00248, 20.1], got 1000.0"],
    ),
    "bounds the wrong way round": (
        ["decoder.family.min_log_scale=4.0"],
        ["decoder.family.min_log_scale: must be <= max_log_scale = 3.0, got 4.0"],
    ),
    "gate of a flow, too far to compute": (
        ['encoder.family={type="iaf", bias=-800.0}'],
        ["encoder.family.bias: must be >= -3, got -800.0"],
    ),
    "weight": (["objective.lambda=-1.0"], ["objective.lambda: must be >= 0, got -1.0"]),
    "share": (["objective.vae_first=1.5"], ["objective.vae_first: must be between 0 and 1, got 1.5"]),
    "weight of a penalty": (
        ["objective.critic.penalties.0.weight=-0.1"],
        ["objective.critic.penalties[0].weight: must be >= 0, got -0.1"],
    ),
    "micro-batches": (["train.micro_batches=0"], ["train.micro_batches: must be >= 1, got 0"]),
    "parts of a batch": (
        ["train.batch=10", "train.micro_batches=4"],
        ["train.micro_batches: a batch of 10 does not divide into 4 micro-batches"],
    ),
    "layout": (["train.channels_last=1"], ["train.channels_last: expected true or false, got 1"]),
    "pair block": (["train.pair_block=1"], ["train.pair_block: must be >= 2, got 1"]),
}

# --- what is not there -----------------------------------------------------------------------------------------------

ABSURD: Rows = {
    "metric as text": (
        {"eval.metrics": ["elob", "iwae{k=0}", "iwae{", "elbo, rmse", 3]},
        [
            "eval.metrics[0].type: unknown metric 'elob'; did you mean 'elbo'? (known: ...)",
            "eval.metrics[1].k: must be >= 1, got 0",
            "eval.metrics[2]: { is not a TOML inline table: it has no end",
            "eval.metrics[3]: expected NAME or NAME{key = value}, got 'elbo, rmse'",
            "eval.metrics[4]: expected a table with a type (known: ...), got 3",
        ],
    ),
    "steps": (["train.steps=1000000000000"], ["train.steps: must be <= 1,000,000,000, got 1000000000000"]),
    "images": (
        {"train.steps": None, "train.images": 10**12, "train.batch": 8},
        ["train.images: make more than 1,000,000,000 steps of 8 rows"],
    ),
    "batch": (["train.batch=1000000000000"], ["train.batch: must be <= 16,777,216, got 1000000000000"]),
    "threads": (["train.threads=100000"], ["train.threads: must be <= 1,024, got 100000"]),
    "average that never moves": (["train.ema=1.0"], ["train.ema: must be >= 0 and < 1, got 1.0"]),
    "pictures": (["eval.samples=1000000000"], ["eval.samples: must be <= 10,000, got 1000000000"]),
    "code": (["prior.size=10000000000"], ["prior.size: must have at most 16,777,216 numbers, got 10000000000"]),
    "shape of a code": (
        ["prior.size=[65536, 65536]"],
        ["prior.size: must have at most 16,777,216 numbers, got [65536, 65536]"],
    ),
    "latent": (
        ["latents.z=10000000000", "latents.h=[]"],
        [
            "latents.z: must have at most 16,777,216 numbers, got 10000000000",
            "latents.h: must be a size >= 1 or a list of such, got []",
        ],
    ),
    "layer": (["encoder.network.hidden=[100000000]"], ["encoder.network.hidden: must be <= 16,777,216, got 100000000"]),
    "layers": (
        {"encoder.network.hidden": [8] * 20_000},
        ["encoder.network.hidden: must have at most 1,000 layers, got 20,000"],
    ),
    "convolutions": (
        {"encoder.network": {"type": "conv", "widths": [8] * 2_000}},
        ["encoder.network.widths: must have at most 1,000 layers, got 2,000"],
    ),
    "layers together": (
        {f"{part}.hidden": [10**6] * 4 for part in ("encoder.network", "decoder.network", "discriminator")},
        [
            "encoder.network: the model takes at least 3,725... GiB with it; this machine has ... GiB",
            "decoder.network: the model takes at least 3,725... GiB with it; this machine has ... GiB",
            "discriminator: the model takes at least 3,725... GiB with it; this machine has ... GiB (critic 'T')",
        ],
    ),
    "rows of a batch": (
        ["prior.size=65536", "eval.batch=16777216"],
        ["eval.batch: 16,777,216 rows of 65,600 numbers are more than this machine's memory holds"],
    ),
    "steps of a flow": (
        ['encoder.family={type="planar", length=1000000}'],
        ["encoder.family.length: must be <= 1,000, got 1000000"],
    ),
    "components": (
        ['prior={type="vamp", components=1000000000}'],
        ["prior.components: must be <= 16,777,216, got 1000000000"],
    ),
    "scales beyond float32": (
        ["decoder.family.max_log_scale=1000.0", "decoder.family.min_log_scale=-1e4"],
        [
            "decoder.family.min_log_scale: must be >= -40, got -10000.0",
            "decoder.family.max_log_scale: must be <= 40, got 1000.0",
        ],
    ),
    "temperature": (
        ['decoder.family={type="bernoulli", temperature=1e-30}'],
        ["decoder.family.temperature: must be >= 0.001, got 1e-30"],
    ),
    "learning rate": (["optimizer.model.lr=1e30"], ["optimizer.model.lr: must be <= 1,000, got 1e+30"]),
    "learning rate of nothing": (["optimizer.model.lr=0"], ["optimizer.model.lr: must be > 0, got 0.0"]),
    "number beyond float32": (
        ["objective.lambda=1e300"],
        ["objective.lambda: must be 0 or of a size from 1.2e-38 to 3.4e+38, got 1e+300"],
    ),
    "weight": (["objective.lambda=1e30"], ["objective.lambda: must be <= 1e+12, got 1e+30"]),
    "weight of an expression": (
        expression("objective.maximize='E[q(x,z)](w*log p(x|z))'", "objective.weights.w=-1e30"),
        ["objective: weight w: must be at most 1e+12 in size"],
    ),
    "part whose name torch has": (
        {
            "encoder": None,
            "encoders.keys": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
            "objective": {
                "type": "expression",
                "maximize": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x) - training)",
                "parts": {"q(z|x)": "keys"},
                "ratios": {"training": "q(x,z) : p(x,z)"},
            },
        },
        [
            "encoders.keys: torch takes no such name for a part; give it another",
            "ratios.training: torch takes no such name for a part; give it another",
        ],
    ),
    "key that is no text": ({"weights": {3: 1.0}}, ["weights: a key must be text that a file of TOML can hold, got 3"]),
    "draws of an objective": (
        ['objective={type="iwae", k=1000000000}'],
        ["objective.k: must be <= 10,000, got 1000000000"],
    ),
    "draws of a metric": (
        ['eval.metrics=[{type="iwae", k=1000000000}]'],
        ["eval.metrics[0].k: must be <= 10,000,000, got 1000000000"],
    ),
    "critic's updates": (
        ["objective.critic.steps=1000000"],
        ["objective.critic.steps: must be <= 1,000, got 1000000"],
    ),
    "rows of a toy": (
        ['data={type="ring", rows=10000000000}'],
        ["data.rows: must be <= 1,000,000,000, got 10000000000"],
    ),
    "tolerance of nothing": (
        ['eval.metrics=[{type="exact", tolerance=0}]'],
        ["eval.metrics[0].tolerance: must be > 0, got 0.0"],
    ),
    "seed of a toy": (['data={type="ring", seed=-1}'], ["data.seed: must be >= 0, got -1"]),
    "test share of nobody": (
        ['data={type="arrays", path="x.npy", test_fraction=0}'],
        ["data.test_fraction: must be > 0 and < 1, got 0.0"],
    ),
    "side of an image": (
        ['data={type="image_folder", root="x", size=100000}'],
        ["data.size: must be <= 16,384, got 100000"],
    ),
}

MISSING: Rows = {
    "data": ({"data": None}, ["data: missing; a table with a type (known: ...)"]),
    "encoder": ({"encoder": None}, ["encoder: missing; it computes q(z|x)"]),
    "decoder": ({"decoder": None}, ["decoder: missing; it computes p(x|z)"]),
    "family": ({"encoder.family": None}, ["encoder.family: missing; a table with a type (known: ...)"]),
    "prior": (
        {"prior": None},
        ["prior: missing; the objective draws p(z) from it; give it, or sources.prior...; the recipe has data"],
    ),
    "objective": ({"objective": None}, ["objective: missing; a table with a type (known: ...)"]),
    "critic": (
        {"discriminator": None},
        ["discriminator: missing; the objective trains a critic 'T', T = log-ratio p(x,z) : q(x,z)"],
    ),
    "train": ({"train": None}, ["train: missing; a table"]),
    "budget": ({"train.steps": None}, ["train: give the budget as steps or as images, one of the two"]),
    "root of mnist": (['data.type="mnist"'], ["data.root: missing; a string"]),
    "type": (
        {"prior": {"size": 16}},
        ["prior.type: missing; known: bits, categorical, codebook, learned, modes, normal, particles, uniform, vamp"],
    ),
}

# --- what does not fit together --------------------------------------------------------------------------------------

MISMATCHES: Rows = {
    "two budgets": (["train.images=1000"], ["train: give the budget as steps or as images, one of the two"]),
    "nothing to train": (
        ["objective.weight_r=0", "objective.weight_g=0"],
        ["objective: weight_r and weight_g are both 0, so nothing is left to train"],
    ),
    "critic of no ratio": (
        ['discriminators.d.type="mlp"'],
        ["discriminators.d: the objective has no ratio of this name; known: T"],
    ),
    "encoder of nothing": (
        ['encoders.encoder_2={network={type="mlp"}, family={type="gaussian"}}'],
        [
            "encoders.encoder_2: the objective uses no part of this name; did you mean 'encoder'? "
            "(known: data, decoder, encoder, prior)"
        ],
    ),
    "latent of nothing": (["latents.w=4"], ["latents.w: the objective has no variable of this name; known: x, z"]),
    "latent of two kinds": (
        ["latents.w={classes=3, size=2}"],
        ["latents.w: write classes, size or like, one of the three"],
    ),
    "half a range": (
        ["latents.w={size=2, low=0.0}"],
        ["latents.w: a range is both low and high, and belongs to a size"],
    ),
    "one class": (["latents.w={classes=1}"], ["latents.w.classes: must be >= 2, got 1"]),
    "latent that the prior has": (
        ["latents.z=4"],
        ["latents.z: a data source or prior says what 'z' looks like; remove this key"],
    ),
    "two parts of one name": (
        ['encoders.prior={network={type="mlp"}, family={type="gaussian"}}'],
        ["prior: two parts have this name"],
    ),
    "flow of bits, named as itself and not as its base": (
        ['data.observe="binarise"', 'decoder.family={type="coupling"}'],
        [
            'decoder.family.type: "coupling" is a family of real variables, this one is 1x8x8 binary ...; '
            "families that serve it: bernoulli, implicit, pixelcnn"
        ],
    ),
    "implicit encoder in a VAE": (
        ['objective.type="vae"', 'encoder.family.type="implicit"'],
        [
            "encoder.family: the objective needs a density at its own draws for q(z|x), in the term "
            "'...log q(z|x)'; the family 'implicit' as set here does not have it; families that do: "
            "...gaussian..."
        ],
    ),
    "implicit decoder in a VAE": (
        ['objective.type="vae"', 'decoder.family.type="implicit"'],
        [
            "decoder.family: the objective needs a density at points that it did not draw for p(x|z), ...; "
            "the family 'implicit' as set here does not have it; families that do: ...gaussian..."
        ],
    ),
    "closed-form KL of an implicit encoder": (
        ['objective.type="vae"', "objective.analytic=true", 'encoder.family.type="implicit"'],
        [
            "encoder.family: the objective needs KL to 'normal' in closed form for q(z|x), ...; the family 'implicit' "
            "as set here does not have it; families that do: gaussian"
        ],
    ),
    "uniform prior that is scored": (
        ['prior.type="uniform"'],
        [
            "prior: the objective needs a density at points that it did not draw for p(z), in the term "
            "'...log p(z)'; the prior 'uniform' as set here does not have it; priors that do: learned, modes, "
            "normal, vamp"
        ],
    ),
    "bits for real data": (
        ['decoder.family.type="bernoulli"'],
        [
            'decoder.family.type: "bernoulli" is a family of binary variables, this one is 1x8x8 real in [0, 1], '
            "17 levels (it draws 'x'); families that serve it: ...gaussian...implicit..."
        ],
    ),
    "real numbers for bits": (
        ['data.observe="binarise"'],
        [
            'decoder.family.type: "gaussian" is a family of real variables, this one is 1x8x8 binary in [0, 1], '
            "17 levels (it draws 'x'); families that serve it: bernoulli, implicit..."
        ],
    ),
    "sigmoid without a range": (
        ['data.type="ring"'],
        [
            'decoder.family.mean: "sigmoid" needs a variable of known range, this one is 2 real; use "linear" '
            "(it draws 'x')"
        ],
    ),
    "smoothed view of a scale per element": (
        ['decoder.family.scale="per_element"', 'objective.critic.view={x="smoothed"}'],
        [
            "decoder.family: the objective needs a draw with the reading 'smoothed' for p(x|z), in the term "
            "'...T'; the family 'gaussian' as set here does not have it; families that do: "
            "...gaussian with scale = 'global' or 'per_channel' or 'fixed'..."
        ],
    ),
    "relaxed view of a gaussian": (
        ['objective.critic.view={x="relaxed"}'],
        ["decoder.family: the objective needs a draw with the reading 'relaxed' for p(x|z), ...; no registered ..."],
    ),
    "literal AS-VAE without a path through bits": (
        [
            'data.observe="binarise"',
            'decoder.family={type="bernoulli", path="none"}',
            'objective.form="literal"',
        ],
        [
            "decoder.family: the objective needs a gradient path through the reading 'sample' of its draws for "
            "p(x|z), in the term '...log q(z|x)'; the family 'bernoulli' as set here does not have it; "
            "families that do: bernoulli with path = 'straight-through' or 'relaxed', implicit..."
        ],
    ),
    "conv networks on a vector": (
        [
            'data.type="ring"',
            'decoder.family.mean="linear"',
            'encoder.network.type="conv"',
            'decoder.network.type="conv"',
        ],
        [
            'encoder.network.type: a conv encoder needs an image (C, H, W), x is 2; use "mlp"',
            'decoder.network.type: a conv decoder makes images (C, H, W), the output is 2; use "mlp"',
        ],
    ),
    "three halvings of 28": (
        [
            'data={type="mnist", root="/data", observe="dequantise"}',
            'encoder.network={type="conv", widths=[8, 16, 32]}',
            'decoder.network={type="conv", widths=[32, 16, 8]}',
            'discriminators.T={type="conv", widths=[8, 16, 32]}',
        ],
        [
            "encoder.network.widths: 3 stages need a size that is a multiple of 8, x is 1x28x28",
            "decoder.network.widths: 3 stages need a size that is a multiple of 8, the output is 1x28x28",
            "discriminators.T.widths: 3 stages need a size that is a multiple of 8, x is 1x28x28 (critic 'T')",
        ],
    ),
    "one row to re-pair": (
        ['objective.form="literal"', "train.batch=1"],
        ["train.batch: must be more than 1, by which the objective shifts rows to re-pair them, got 1"],
    ),
}

# --- equations -------------------------------------------------------------------------------------------------------

R, G = "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))", "E[p(x,z)](log q(z|x))"

EQUATIONS: Rows = {
    "none": (
        expression(),
        ["objective: write the objective as maximize, as updates or as stages, one of the three"],
    ),
    "two": (
        maximize(R, f'objective.updates.a.maximize="{R}"'),
        ["objective: write the objective as maximize, as updates or as stages, one of the three"],
    ),
    "breaks off": (
        maximize("E[q(x,z)](log p(x|z) - "),
        ["objective.maximize: expected a term at character 24: E[q(x,z)](log p(x|z) - ⟨end⟩"],
    ),
    "unknown name": (
        maximize("E[q(x,z)](log p(x|z) - f3)", 'objective.ratios.f1="q(x,z) : p(x)p(z)"'),
        ["objective.maximize: unknown ratio or weight 'f3'...f1... at character 24: E[q(x,z)](log p(x|z) - ⟨f3⟩)"],
    ),
    "unknown joint": (
        maximize("E[r(x,z)](log p(x|z))"),
        ["objective.maximize: unknown joint 'r'...p, q... at character 3: E[⟨r⟩(x,z)](log p(x|z))"],
    ),
    "unknown variable": (
        maximize("E[q(x,y)](log p(x|z))"),
        ["objective.maximize: ...no variable 'y' in q(x,z) = q(x) q(z|x) at character 7: E[q(x,⟨y⟩)](log p(x|z))"],
    ),
    "unknown factor": (
        maximize("E[q(x,z)](log p(z|x))"),
        ["objective.maximize: p(z|x) is no factor of p(x,z) = p(z) p(x|z); ...(known: p(x|z), p(z)) at character ..."],
    ),
    "term outside an expectation": (
        maximize("E[q(x,z)](log p(x|z)) + log p(z)"),
        ["objective.maximize: update model: log p(z) stands outside an expectation E[...](...)"],
    ),
    "expectation in an expectation": (
        maximize("E[q(x,z)](E[p(z)](log p(z)))"),
        ["objective.maximize: an expectation stands inside another at character 11: ..."],
    ),
    "variable that is not drawn": (
        maximize("E[q(x)](log p(x|z))"),
        ["objective: p(x|z) needs 'z', which its expectation over x does not draw"],
    ),
    "density of the data": (
        maximize("E[q(x,z)](log p(x|z) + log p(z) + log q(x))"),
        ["objective: log q(x): the data's density is not known"],
    ),
    "no gradient": (
        maximize("E[q(x,z)](1) + E[p(z)](log p(z))"),
        ["objective: update 'model' trains nothing; no gradient of it reaches a part that can learn"],
    ),
    "sides of a ratio": (
        maximize("E[q(x,z)](log p(x|z) - f)", 'objective.ratios.f="q(x,z) / p(x)p(z)"'),
        ["objective.ratios.f: expected ':' at character 8: q(x,z) ⟨/⟩ p(x)p(z)"],
    ),
    "variables of a ratio": (
        maximize("E[q(x,z)](log p(x|z) - f)", 'objective.ratios.f="q(x,z) : p(x)"'),
        ["objective.ratios.f: ratio f = log-ratio q(x,z) : p(x): the two sides are over different variables"],
    ),
    "known part of a ratio": (
        maximize("E[q(x,z)](log p(x|z) - f)", 'objective.ratios.f={of="q(x,z) : p(x)p(z)", known="log q(z"}'),
        ["objective.ratios.f.known: expected ')' at character 8: log q(z⟨end⟩"],
    ),
    "score by a proper loss": (
        maximize("E[p(x)](f)", 'objective.scores.f={of="q(x) : p(x)"}'),
        ["objective: f = score q(x) : p(x): a critic trained by Logistic gives a log-ratio: use log_ratio(...)"],
    ),
    "ratio named as a part": (
        maximize("E[q(x,z)](log p(x|z) - encoder)", 'objective.ratios.encoder="q(x,z) : p(x)p(z)"'),
        ["objective: ratio 'encoder' has the name of a part of the model"],
    ),
    "ratio named as a word": (
        maximize("E[q(x,z)](log p(x|z) - E)", 'objective.ratios.E="q(x,z) : p(x)p(z)"'),
        ["objective.ratios: 'E' is a word of the objective language and cannot name anything else"],
    ),
    "update that trains what is not there": (
        expression(f'objective.updates.a={{maximize="{R}", trains=["encodr"]}}'),
        ["objective: update 'a' trains 'encodr', which is no part; did you mean 'encoder'? (known: ...)"],
    ),
    "update that trains in vain": (
        expression(f'objective.updates.a={{maximize="{R}", trains=["decoder", "prior"]}}'),
        ["objective: update 'a' trains 'prior', which no gradient of it reaches"],
    ),
    "order": (
        maximize(R, 'objective.order="model critics"'),
        ["objective.order: 'model critics' is not allowed; did you mean 'model, critics'? (known: ...)"],
    ),
    "two stages of one name": (
        expression(f'objective.stages=[{{name="a", share=0.7, maximize="{R}"}}, {{name="a", maximize="{R}"}}]'),
        ["objective: two stages are called 'a'"],
    ),
    "shares over 1": (
        expression(
            f'objective.stages=[{{name="a", share=0.7, maximize="{R}"}}, {{name="b", share=0.7, maximize="{R}"}}]'
        ),
        ["objective: the stages' shares sum to 1.4; they must sum to 1"],
    ),
    "stage without an equation": (
        expression('objective.stages=[{name="a"}]'),
        ["objective.stages[0].maximize: write it, or updates, one of the two"],
    ),
    "names that nothing uses": (
        maximize(
            R, 'objective.ratios.f="q(x) : p(x)"', 'objective.scores.g.of="q(x) : p(x)"', "objective.weights.b=2.0"
        ),
        [f"objective.{key}: no update and no report uses it" for key in ("ratios.f", "scores.g", "weights.b")],
    ),
    "joint of a reserved name": (
        maximize(R, 'objective.joints.s="s(x) s(z|x)"'),
        ["objective.joints: 's' is a word of the objective language and cannot name anything else"],
    ),
    "schedule of a weight": (
        maximize(f"b*{G}", "objective.weights.b={to=1.0, start=0.0, over=2.0}"),
        ["objective.weights.b.over: must be between 0 and 1, got 2.0"],
    ),
    "table of a weight that is of no form": (
        maximize(f"b*{G}", 'objective.weights.b={ contrl = "log p(z)", gain_ = 0.1 }'),
        [
            "objective.weights.b: a table here is { to = .., start = .., over = .. } or { r = .. } "
            "or { control = .., gain = .. }, "
            "got { contrl, gain_ }"
        ],
    ),
    "strength of a balanced weight": (
        ["objective.lambda={ r = -0.5 }"],
        ["objective.lambda.r: must be >= 0, got -0.5"],
    ),
    "key of a balanced weight": (
        ['objective.lambda={ r = 0.5, agianst = "log p(x|z)" }'],
        ["objective.lambda.agianst: unknown key; did you mean 'against'? (known: against, cycles, over, r, start)"],
    ),
    "start of a strength that does not ramp": (
        ["objective.lambda={ r = 0.5, start = 0.1 }"],
        ["objective.lambda.over: say over which share of the stage r goes from start to its value"],
    ),
    "two ramps of a strength": (
        ["objective.lambda={ r = 0.5, over = 0.1 }"],
        ["objective.ramp: lambda says itself how it changes; leave one of the two out"],
    ),
    "balanced against nothing": (
        ["objective.lambda={ r = 0.5, against = '' }"],
        ["objective.lambda.against: name a term of the objective, such as 'log p(x|z)'"],
    ),
    "balanced against what is not there": (
        ["objective.lambda={ r = 0.5, against = 'log p(z|x)' }"],
        [
            "objective: weight 'lambda': against 'log p(z|x)', which is no other term of update 'model'; "
            "did you mean 'log q(z|x)'? (known: ...)"
        ],
    ),
    "balanced without a likelihood": (
        ["objective.lambda={ r = 0.5 }", "objective.weight_r=0.0"],
        ["objective.lambda: r is in units of the likelihood's pull, which weight_r = 0 leaves out; give a number"],
    ),
    "balanced in two places": (
        maximize(f"b*{R}", 'objective.weights.b={ r = 0.5, against = "log p(z)" }'),
        ["objective: weight 'b': a balanced weight stands before one term of one expectation, and not inside it..."],
    ),
    "weight that is not balanced": (
        ["objective.w={ r = 0.5 }"],
        [
            "objective.w.to: missing; a number",
            "objective.w.start: missing; a number",
            "objective.w.over: missing; a number",
            "objective.w.r: unknown key; known: after, cycles, over, start, to",
        ],
    ),
    "schedule of a penalty": (
        ['objective.critic.penalties=[{type="r1", weight={start=1.0, to=-0.1, ovr=0.5}}, {type="r1", weight="low"}]'],
        [
            "objective.critic.penalties[0].weight.over: missing; a number",
            "objective.critic.penalties[0].weight.ovr: unknown key; did you mean 'over'? (known: ...)",
            "objective.critic.penalties[1].weight: expected a number or a table, got 'low'",
        ],
    ),
    "penalty that becomes a reward": (
        ['objective.critic.penalties=[{type="r1", weight={start=1.0, to=-0.1, over=0.5}}]'],
        ["objective.critic.penalties[0].weight: must be >= 0, got to = -0.1"],
    ),
    "part that is not there": (
        maximize(R, 'objective.parts={"q(z|x)"="encodr"}'),
        ["encoders.encodr: missing; it computes q(z|x); did you mean 'encoder'? (known: decoder, encoder)"],
    ),
    "part of an unknown factor": (
        maximize(R, 'objective.parts={"q(y|x)"="encoder"}'),
        ["objective.parts: q(y|x) is no factor of q(x) q(z|x)"],
    ),
    "part of an unknown joint": (
        maximize(R, 'objective.parts={"r(y|x)"="encoder"}'),
        ["objective.parts: 'r(y|x)': unknown joint 'r'; known: p, q"],
    ),
}

# --- overrides -------------------------------------------------------------------------------------------------------

OVERRIDES: Rows = {
    "no value": (
        ["train.steps"],
        ["override 'train.steps': expected KEY=VALUE with a dotted key, such as train.steps=200"],
    ),
    "broken value": (["prior.size=[2, "], ["override 'prior.size=[2, ': [2, is not a TOML value: ..."]),
    "key of a number": (["train.steps.x=1"], ["train.steps: is ..., so it has no keys to override"]),
    "place beyond a list": (
        ["objective.critic.penalties.3.weight=1.0"],
        ["objective.critic.penalties.3: '3' is no position in a list of 1, counted from 0"],
    ),
}

BROKEN = {
    f"{group}, {name}": row
    for group, rows in {
        "typo": TYPOS,
        "unknown": COMPONENTS,
        "type": TYPES,
        "value": VALUES,
        "absurd": ABSURD,
        "missing": MISSING,
        "mismatch": MISMATCHES,
        "equation": EQUATIONS,
        "override": OVERRIDES,
    }.items()
    for name, row in rows.items()
}


def test_the_recipe_that_is_broken_below_is_whole(registry: Registry) -> None:
    compiled(registry, [])


@pytest.mark.parametrize(("overrides", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_recipe_is_told(overrides: Overrides, expected: list[str], registry: Registry) -> None:
    assert_says(problems(registry, overrides), expected)


def test_every_mistake_is_told_at_once(registry: Registry) -> None:
    overrides = [
        "trian.steps=5",
        'train.batch="x"',
        "train.log_every=0",
        'encoder.network.type="mpl"',
        "decoder.network.hiden=[1]",
        "optimizer.model.lr=-1.0",
        "optimizer.model.betas=[0.9, 2.0]",
        "objective.critic.penalties.0.wieght=1.0",
        'data.labels="false"',
    ]
    expected = [
        "data.labels: expected true or false, got 'false'",
        "objective.critic.penalties[0].wieght: unknown key; did you mean 'weight'? (known: at, every, type, weight)",
        "train.batch: expected a whole number, got 'x'",
        "train.log_every: must be > 0, got 0",
        "encoder.network.type: unknown encoder 'mpl'; did you mean 'mlp'? (known: conv, mlp, resnet, switch)",
        "decoder.network.hiden: unknown key; did you mean 'hidden'? (known: activation, dropout, hidden, init, type)",
        "optimizer.model.lr: must be > 0, got -1.0",
        "optimizer.model.betas: must be >= 0 and < 1, got 2.0",
        "trian: unknown key; did you mean 'train'? (known: ...)",
    ]
    assert_says(problems(registry, overrides), expected)


def test_mismatches_of_families_and_of_networks_are_told_at_once(registry: Registry) -> None:
    overrides = ['encoder.family.type="implicit"', 'encoder.network={type="conv", widths=[4, 4, 4, 4]}']
    expected = [
        "encoder.family: the objective needs a density at its own draws for q(z|x), ...",
        "encoder.family: the objective needs a density at points that it did not draw for q(z|x), ...",
        "encoder.network.widths: 4 stages need a size that is a multiple of 16, x is 1x8x8",
    ]
    assert_says(problems(registry, overrides), expected)


# --- files -----------------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[Mapping[str, str | bytes], str, list[str]]] = {
    "missing file": (
        {"quickstart.toml": ""},
        "quikstart.toml",
        ["...: no such file; did you mean '.../quickstart.toml'?"],
    ),
    "folder": (
        {"in/recipe.toml": ""},
        "in",
        ["...in: is a folder; expected a TOML file; did you mean '.../in/recipe.toml'?"],
    ),
    "not TOML": (
        {"a.toml": "[train]\nsteps 5"},
        "a.toml",
        ["...a.toml: not TOML: Expected '=' after a key... (at line 2, column 7)"],
    ),
    "not text": ({"a.toml": b"format = 1 \xff"}, "a.toml", ["...a.toml: not TOML: byte 11 is not UTF-8"]),
    "a key twice": (
        {"a.toml": "seed = 1\nseed = 2"},
        "a.toml",
        ["...a.toml: not TOML: Cannot overwrite a value ..."],
    ),
    "empty": ({"a.toml": ""}, "a.toml", ["data: missing; ...", "objective: missing; ...", "train: missing; a table"]),
    "based on itself": (
        {"a.toml": 'base = "a.toml"'},
        "a.toml",
        ["base: these recipes are based on each other: .../a.toml -> .../a.toml"],
    ),
    "cyclic base": (
        {"a.toml": 'base = "b.toml"', "b.toml": 'base = "a.toml"'},
        "a.toml",
        ["base: these recipes are based on each other: .../a.toml -> .../b.toml -> .../a.toml"],
    ),
    "missing base": (
        {"mine.toml": 'base = "vae_minst.toml"', "vae_mnist.toml": ""},
        "mine.toml",
        ["...mine.toml: base: ...vae_minst.toml: no such file; did you mean '.../vae_mnist.toml'?"],
    ),
    "base that is no name": (
        {"a.toml": "base = 3"},
        "a.toml",
        ["...a.toml: base: expected the name of a TOML file, got 3"],
    ),
    "broken base": (
        {"a.toml": 'base = "b.toml"', "b.toml": "= 1"},
        "a.toml",
        ["...a.toml: base: ...b.toml: not TOML: ... (at line 1, column 1)"],
    ),
}


@pytest.mark.parametrize(("files", "name", "expected"), FILES.values(), ids=FILES)
def test_a_broken_file_is_told(
    files: Mapping[str, str | bytes], name: str, expected: list[str], registry: Registry, tmp_path: Path
) -> None:
    for file, content in files.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_says(problems(registry, [], tmp_path / name), expected)


# --- several data sources --------------------------------------------------------------------------------------------


def test_a_problem_of_a_further_data_source_names_its_own_table_beside_all_other_problems(
    registry: Registry, tmp_path: Path
) -> None:
    empty = {"format": 1, "train": {"steps": 1}, "objective": {"type": "vae"}, "eval": {}}
    recipe = empty | {
        "data": {"type": "arrays", "path": str(tmp_path / "no.npy")},
        "sources": {"prior": {"type": "arrays", "path": str(tmp_path / "none.npy")}, "other": {"type": "digits"}},
        "decoder": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
        "discriminators": {"T": {"type": "mlp"}},
    }
    with pytest.raises(ConfigError) as caught:
        compile_recipe(read_recipe(recipe, registry=registry), registry)
    assert_says(
        caught.value.lines,
        [
            f"data.path: no file '{tmp_path / 'no.npy'}'",
            f"sources.prior.path: no file '{tmp_path / 'none.npy'}'",
            "encoder: missing; it computes q(z|x)",
            "sources.other: the objective uses no part of this name; ...",
            "discriminators.T: the objective has no ratio of this name...",
        ],
    )
    assert [problem.path for problem in caught.value.problems][:2] == [("data", "path"), ("sources", "prior", "path")]


def test_rows_of_a_further_data_source_that_cannot_be_used_are_a_problem_of_its_table(
    registry: Registry, tmp_path: Path
) -> None:
    codes = tmp_path / "codes.npy"
    np.save(codes, np.full((2000, 2), np.nan, np.float32))
    table = {"type": "arrays", "path": str(codes)}
    with pytest.raises(ConfigError) as caught:
        start(registry, {"objective": {"type": "ali"}, "sources.prior": table, "prior": None}, tmp_path / "run")
    assert_says(caught.value.lines, ["sources.prior.path: ... is not finite, or too large for float32, in rows 0, ..."])


def test_rows_of_several_data_sources_that_cannot_be_used_are_told_together(registry: Registry, tmp_path: Path) -> None:
    for name in ("images", "codes"):
        np.save(tmp_path / f"{name}.npy", np.full((2000, 2), np.nan, np.float32))
    images, codes = ({"type": "arrays", "path": str(tmp_path / f"{name}.npy")} for name in ("images", "codes"))
    decoder = {"network": {"type": "mlp"}, "family": {"type": "gaussian"}}
    tables = {"objective": {"type": "ali"}, "data": images, "sources.prior": codes, "prior": None, "decoder": decoder}
    with pytest.raises(ConfigError) as caught:
        start(registry, tables, tmp_path / "run")
    finite = "... is not finite, or too large for float32, in rows 0, ..."
    assert_says(caught.value.lines, [f"data.path: {finite}", f"sources.prior.path: {finite}"])


# --- what only the data can tell -------------------------------------------------------------------------------------

DATA: Rows = {
    "more rows in a batch than there are": (
        ["train.batch=4096"],
        ["train.batch: 4096 is more than the 1500 rows of the training split of data; set it to 1500 or fewer"],
    ),
    "no mnist there": (
        ['data={type="mnist", root="/no/such/folder", observe="dequantise"}'],
        ["data.root: no MNIST under '/no/such/folder' (looked for ...); give root = ..."],
    ),
    "no images there": (
        ['data={type="image_folder", root="/no/such/folder", size=8}'],
        ["data.root: /no/such/folder: no such folder"],
    ),
    "device that does not exist": (
        ['train.device="gpu"'],
        ["train.device: 'gpu' is not a device; allowed: 'auto', 'cpu', 'cuda', 'cuda:N', 'mps', 'xpu'"],
    ),
}


@pytest.mark.parametrize(("overrides", "expected"), DATA.values(), ids=DATA)
def test_a_recipe_that_does_not_fit_its_data_is_told_before_anything_is_written(
    overrides: Overrides, expected: list[str], registry: Registry, tmp_path: Path
) -> None:
    compiled(registry, overrides)
    with pytest.raises(ConfigError) as caught:
        start(registry, overrides, tmp_path / "run")
    assert_says(caught.value.lines, expected)
    assert not (tmp_path / "run").exists()
