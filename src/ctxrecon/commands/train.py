"""``ctxrecon train``: the scripts in ``training/``, run from an installed package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

import typer

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of a command that hands its options, ``--help`` too, to a parser of training."""

_SUBJECTS = {
    "cross_modal": "Train a network that reconstructs with the help of another contrast.",
    "prior": "Train or fine-tune the text-conditioned diffusion prior.",
    "clip": "Train a CLIP model on images and prompts; its text encoder conditions the prior.",
    "reconstructor": "Train a direct reconstruction network.",
    "masks": "Train a k-space mask sampler jointly with a reconstruction.",
    "tasks": "Train a k-space mask sampler jointly with segmentation or classification.",
}
_MOST_PROCESSES = 2**16

train = typer.Typer(
    help="Train models; --num_processes N distributes the training over GPUs.",
    no_args_is_help=True,
)


def _command(subject: str) -> Callable[[typer.Context], None]:
    """Return the command of a training, which forwards its options."""

    def run(context: typer.Context) -> None:
        from ctxrecon.training.script import run_script

        run_script(partial(_run, subject, context.args))

    return run


for _subject, _help in _SUBJECTS.items():
    train.command(_subject, help=_help, context_settings=PASSED_ON)(_command(_subject))


def _run(subject: str, words: Sequence[str]) -> None:
    """Train in this process, or in several processes started by accelerate."""
    from ctxrecon.training.config import Whole
    from ctxrecon.training.parser import TrainingParser

    parser = TrainingParser(add_help=False, allow_abbrev=False)
    count = Whole(1, _MOST_PROCESSES)
    parser.add_argument("--num_processes", "--num-processes", type=count, default=1)
    chosen, options = parser.parse_known_args(list(words))
    package = import_module(f"ctxrecon.training.{subject}")
    program = f"ctxrecon train {subject} [--num_processes N]"
    if chosen.num_processes == 1:
        package.main(options, program)
        return
    package.parse_args(options, program)  # report a bad option once, not once per process
    _launch(f"ctxrecon.training.{subject}", chosen.num_processes, options)


def _launch(module: str, num_processes: int, options: Sequence[str]) -> None:
    """Run a module in several processes of this machine, and exit with their status."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    words = ["--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1"]
    words += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    try:
        launch_command(launch_command_parser().parse_args([*words, "-m", module, *options]))
    except ChildFailedError as error:  # the process has already reported the error
        sys.exit(error.get_first_failure()[1].exitcode)
