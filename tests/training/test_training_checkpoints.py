"""Training checkpoints: complete or absent, without pickle, for any number of processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.training import latest_checkpoint, load_state, prune_checkpoints, save_state


def network(width: int = 3) -> torch.nn.Sequential:
    """A network whose second layer is frozen."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 2))
    net[1].requires_grad_(False)
    return net


def trained(steps: int = 3) -> dict:
    model = network()
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    ema = EMAModel(parameters, decay=0.9)
    state = {"model": model, "ema": ema, "optimizer": optimizer}
    for _ in range(steps):
        one_step(state)
    return state


def one_step(state: dict) -> None:
    state["model"](torch.ones(2, 4)).square().sum().backward()
    state["optimizer"].step()
    state["optimizer"].zero_grad()
    state["ema"].step([value for value in state["model"].parameters() if value.requires_grad])


def test_a_checkpoint_restores_weights_averages_and_optimizer(tmp_path: Path) -> None:
    straight = trained(5)
    save_state(tmp_path, 3, **trained(3))
    folder = present(latest_checkpoint(tmp_path))
    resumed = trained(0)
    assert load_state(folder, **resumed) == 3
    for _ in range(2):
        one_step(resumed)
    for name, value in straight["model"].state_dict().items():
        assert torch.equal(value, resumed["model"].state_dict()[name])
    for one, other in zip(straight["ema"].shadow_params, resumed["ema"].shadow_params, strict=True):
        assert torch.equal(one, other)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def test_the_scale_of_half_precision_gradients_is_kept(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    save_state(tmp_path, 1, **trained(1), scaler=scaler)
    fresh = torch.amp.GradScaler("cpu", init_scale=4.0)
    load_state(present(latest_checkpoint(tmp_path)), **trained(0), scaler=fresh)
    assert fresh.get_scale() == 512.0


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path: Path) -> None:
    state = trained(1)
    for step in (9, 10, 11):
        save_state(tmp_path, step, **state)
    (tmp_path / ".checkpoint-12.partial").mkdir()
    (tmp_path / "checkpoint-13").mkdir()
    (tmp_path / "checkpoint-old").mkdir()
    assert present(latest_checkpoint(tmp_path)).name == "checkpoint-11"
    (tmp_path / "checkpoint-13").rmdir()
    (tmp_path / "checkpoint-old").rmdir()
    prune_checkpoints(tmp_path, 2)
    kept = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert kept == ["checkpoint-10", "checkpoint-11"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    with pytest.raises(InputError, match="no training checkpoint"):
        load_state(tmp_path, **trained(0))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, 1, **trained(1))
    model = network(width=5)
    parameters = [value for value in model.parameters() if value.requires_grad]
    with pytest.raises(InputError, match=r"another network: 0.(bias|weight)"):
        load_state(
            present(latest_checkpoint(tmp_path)),
            model=model,
            ema=EMAModel(parameters),
            optimizer=torch.optim.AdamW(parameters),
        )


SHARDED = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel
from torch.distributed.fsdp import fully_shard
from ctxrecon.training import load_state, save_state
from ctxrecon.training.checkpoints import averaged_weights

folder = Path(sys.argv[1])
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=int(sys.argv[2]), world_size=2
)

def trained(steps, sharded):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))
    if sharded:
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    ema = EMAModel(model.parameters(), decay=0.9)
    state = {"model": model, "ema": ema, "optimizer": optimizer}
    for _ in range(steps):
        step(state)
    return state

def step(state):
    state["model"](torch.ones(2, 4)).square().sum().backward()
    state["optimizer"].step()
    state["optimizer"].zero_grad()
    state["ema"].step(list(state["model"].parameters()))

straight = trained(4, False)
first = trained(2, True)
save_state(folder, 2, **first, write=dist.get_rank() == 0)
dist.barrier()
for sharded in (True, False):
    again = trained(0, sharded)
    assert load_state(folder / "checkpoint-2", **again) == 2
    step(again), step(again)
    averages = averaged_weights(again["model"], again["ema"])
    for (name, value), shadow in zip(
        straight["model"].named_parameters(), straight["ema"].shadow_params, strict=True
    ):
        found = dict(again["model"].named_parameters())[name]
        found = found.full_tensor() if sharded else found
        torch.testing.assert_close(found, value)
        torch.testing.assert_close(averages[name], shadow)
dist.destroy_process_group()
"""


def test_a_checkpoint_of_a_sharded_model_is_whole_and_fits_any_number_of_processes(
    tmp_path: Path,
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(tmp_path), str(rank)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    assert json.loads((tmp_path / "checkpoint-2" / "state.json").read_text())["step"] == 2
