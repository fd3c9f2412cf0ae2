from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch

from jointgen.contracts.statistics import Mean
from jointgen.engine.batch_norm import synchronise
from jointgen.errors import ConfigError, JointgenError
from jointgen.evaluation.merging import merge_over
from jointgen.runtime.workers import Workers, leave

# --- one process ---


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no launcher had started us."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_exchanges_with_nobody() -> None:
    workers = Workers.start("cpu")
    assert (workers.rank, workers.world, workers.is_main, workers.device) == (0, 1, True, torch.device("cpu"))
    workers.barrier()
    values, mean = [torch.tensor([1.0, 2.0]), torch.tensor(3.0)], Mean(2, 1.0, 1.0)
    workers.all_reduce_mean_(values)
    workers.broadcast_(values)
    assert workers.sum_(values[0]) is values[0]
    assert [value.tolist() for value in values] == [[1.0, 2.0], 3.0]
    assert workers.gather(torch.eye(2)).tolist() == torch.eye(2).tolist()
    assert merge_over(workers, {"m": mean}, {"m": Mean}) == {"m": mean}
    workers.check_replicas({"w": values[0]})
    leave()


def test_starts_again_with_other_settings() -> None:
    """Accelerate's own state is one per Python process; an earlier object must not follow a later one."""
    full, half = Workers.start("cpu", "fp32"), Workers.start("cpu", "bf16")
    full_again = Workers.start("cpu", "fp32")
    dtypes = []
    for workers in (full, half, full_again, half):
        with workers.autocast():
            dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        workers.barrier()
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]


def test_precision_is_ours_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with Workers.start("cpu").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_auto_takes_a_gpu_if_there_is_one() -> None:
    assert Workers.start("auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_starting_changes_no_switch_of_torch() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    Workers.start("cpu")
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.get_num_threads())


@pytest.mark.parametrize("name", ["gpu", "", "cpu:1", "cuda:x"])
def test_no_such_device(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^device: '{name}' is not a device; allowed: 'auto', 'cpu', 'cuda', "):
        Workers.start(name)


def test_no_such_gpu() -> None:
    with pytest.raises(ConfigError, match=r"^device: 'cuda:99', but torch sees \d+ GPUs"):
        Workers.start("cuda:99")


def test_a_variable_that_overrules_the_recipe_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    with pytest.raises(ConfigError, match=r"^device: 'cpu', but Accelerate's environment variables say 'meta'"):
        Workers.start("cpu")


def test_fewer_processes_than_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(JointgenError, match=r"^WORLD_SIZE is 2, but no launcher gave this process a rank"):
        Workers.start("cpu")


def test_fewer_processes_than_asked() -> None:
    with pytest.raises(JointgenError, match=r"^2 processes were asked for, but 1 joined; start them with"):
        Workers.start("cpu", processes=2)


def test_launched_processes_that_accelerate_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens on a machine whose GPU Accelerate takes for one process although torchrun started two."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("jointgen.runtime.workers._accelerator", lambda cpu: One())
    with pytest.raises(JointgenError, match=r"^WORLD_SIZE is 2, but 1 process\(es\) joined"):
        Workers.start("cpu")


class One:
    num_processes = 1


def test_half_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(JointgenError, match=r"^LOCAL_RANK is set as by a launcher, but RANK, WORLD_SIZE, MASTER_ADDR"):
        Workers.start("cpu")


# --- two processes ---

TWO = """
import json, sys, warnings
import torch
from jointgen.engine.batch_norm import average_statistics, synchronise
from jointgen.runtime.workers import Votes, Workers, leave
from jointgen.errors import JointgenError
from jointgen.contracts.statistics import Mean
from jointgen.evaluation.merging import merge_over

warnings.simplefilter("error")
torch.set_num_threads(1)
workers = Workers.start("auto" if not torch.cuda.is_available() else "cpu", processes=2)
workers = Workers.start("cpu", "bf16")  # once more, with the same processes
rank, found = workers.rank, {}
found["world"] = [workers.world, workers.is_main, str(workers.device)]

# gradients: several shapes, a scalar, channels last, two dtypes, a leaf that requires a gradient
nhwc = torch.arange(16.0).view(1, 2, 2, 4).to(memory_format=torch.channels_last) * (rank + 1)
leaf = torch.nn.Parameter(torch.tensor([1.0, 2.0]) * (rank + 1))
values = [torch.tensor([[rank, 2.0]]), torch.tensor(4.0 * rank), nhwc, torch.tensor([rank], dtype=torch.float64), leaf]
calls, real = [], torch.distributed.all_reduce
torch.distributed.all_reduce = lambda *a, **k: (calls.append(a[0].numel()), real(*a, **k))
workers.all_reduce_mean_(values)
torch.distributed.all_reduce = real
found["mean"] = [value.tolist() for value in values]
found["collectives"] = calls
found["strides"] = nhwc.is_contiguous(memory_format=torch.channels_last)

total = torch.tensor([[1, 2], [3, rank]])
found["sum"] = [workers.sum_(total) is total, total.tolist(), workers.sum_(torch.eye(2).T[:, :1] * rank).tolist()]
weights = [torch.full((2,), float(rank)), torch.tensor([rank == 0]), torch.tensor(rank)]
workers.broadcast_(value for value in weights)
found["broadcast"] = [value.tolist() for value in weights]

found["gather"] = workers.gather(torch.tensor([[rank, 10.0]])).tolist()
found["ragged"] = workers.gather(torch.arange(3 - 2 * rank) + 10 * rank).tolist()
found["none"] = [*workers.gather(torch.empty(0, 4)).shape]
found["one-sided"] = workers.gather(torch.ones(rank, 2, requires_grad=True)).tolist()
data = torch.arange(5.0)
mean = merge_over(workers, {"m": Mean.of(data[:2] if rank == 0 else data[2:])}, {"m": Mean})["m"]
found["merge"] = [mean.n, mean.mean, mean.m2]

same = {"a": torch.ones(2), "nan": torch.tensor(float("nan"))}
workers.check_replicas(same)
for name, other in {"replicas": [1.0, 1.0 + 1e-6 * rank], "exchanged": [1.0 + rank, 2.0 - rank]}.items():
    try:
        workers.check_replicas({**same, "b": torch.tensor(other)})
    except JointgenError as error:
        found[name] = str(error)

norms = torch.nn.ModuleDict({"plain": torch.nn.Linear(1, 1), "coupled": torch.nn.BatchNorm1d(2)})
norms["coupled"].running_mean += torch.tensor([1.0, 3.0]) * rank
found["norms"] = synchronise(norms, workers)
average_statistics(norms, workers)
found["statistics"] = [norms["coupled"].running_mean.tolist(), norms["coupled"].running_var.tolist()]

asked = iter([0, 15 * rank, 0, 0])
vote = Votes(workers, lambda: next(asked))
found["votes"] = [vote(), vote(), vote()]

workers.barrier()
print(json.dumps({str(rank): found}), flush=True)
leave()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each of two processes under torchrun found. One launch for all the tests: it takes seconds."""
    script = tmp_path_factory.mktemp("two") / "two.py"
    script.write_text(textwrap.dedent(TWO))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {}
    for line in filter(None, done.stdout.replace("}{", "}\n{").splitlines()):  # their lines may run together
        found |= json.loads(line)
    return found


def test_two_processes_know_each_other(two: dict[str, Any]) -> None:
    assert two["0"]["world"] == [2, True, "cpu"] and two["1"]["world"] == [2, False, "cpu"]


def test_both_hold_the_same_afterwards(two: dict[str, Any]) -> None:
    different = {name for name in two["0"] if two["0"][name] != two["1"][name]}
    assert different == {"world"}


def test_mean_by_hand(two: dict[str, Any]) -> None:
    """(0 + 1) / 2, 2, (0 + 4) / 2; ranks 1 and 2 times arange: 1.5 times; 1.5 times (1, 2)."""
    matrix, scalar, nhwc, double, leaf = two["1"]["mean"]
    assert (matrix, scalar, double, leaf) == ([[0.5, 2.0]], 2.0, [0.5], [1.5, 3.0])
    assert nhwc == (torch.arange(16.0).view(1, 2, 2, 4) * 1.5).tolist()
    assert two["1"]["strides"]


def test_one_collective_per_dtype(two: dict[str, Any]) -> None:
    assert two["0"]["collectives"] == [2 + 1 + 16 + 2, 1]


def test_sum_and_broadcast(two: dict[str, Any]) -> None:
    assert two["1"]["sum"] == [True, [[2, 4], [6, 1]], [[1.0], [0.0]]]
    assert two["1"]["broadcast"] == [[0.0, 0.0], [True], 0]


def test_gather_in_order_of_rank(two: dict[str, Any]) -> None:
    assert two["0"]["gather"] == [[0.0, 10.0], [1.0, 10.0]]
    assert two["0"]["ragged"] == [0, 1, 2, 10]
    assert two["0"]["none"] == [0, 4]
    assert two["0"]["one-sided"] == [[1.0, 1.0]]


def test_merge_equals_all_the_rows(two: dict[str, Any]) -> None:
    """0 to 4: mean 2, squared deviations 4 + 1 + 0 + 1 + 4."""
    assert two["0"]["merge"] == [5, 2.0, 10.0]


def test_replicas_that_drift_are_named(two: dict[str, Any]) -> None:
    said = "processes no longer agree on 1 tensors, the first is 'b'"
    assert two["1"]["replicas"] == two["1"]["exchanged"] == said


def test_batch_norm_is_named_and_its_statistics_averaged(two: dict[str, Any]) -> None:
    """Means (0, 0) and (1, 3), variances (1, 1) in both."""
    assert two["0"]["norms"] == ["coupled"]
    assert two["0"]["statistics"] == [[0.5, 1.5], [1.0, 1.0]]


def test_one_process_has_no_norms_to_name() -> None:
    assert synchronise(torch.nn.ModuleDict({"coupled": torch.nn.BatchNorm1d(2)}), Workers.start("cpu")) == []


def test_all_learn_one_vote_later_what_one_says(two: dict[str, Any]) -> None:
    """Rank 1 says 15 at the second vote; both hear it at the third."""
    assert two["0"]["votes"] == two["1"]["votes"] == [0, 0, 15]
