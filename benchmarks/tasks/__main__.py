r"""Tasks solved from undersampled k-space on held-out people: analogues of the InfoMRI tables.

    python training/build_bank.py --output runs/masses.npz --brains 400 --knees 0 --finding Mass
    python -m benchmarks.tasks --bank runs/masses.npz

    python training/build_bank.py --output runs/knees.npz --brains 0 --knees 2000
    python -m benchmarks.tasks --tables privacy_knees frontier --knees runs/knees.npz
    python -m benchmarks.tasks --tables privacy_digits   # no bank is needed

Networks are trained by ``training/train_task.py`` in folders of ``--runs``, once for each of
``--seeds``; stopped runs resume, and tables share trainings where they can. Test people have seeds
that no bank and no validation set uses.

``privacy_*`` and ``frontier`` measure how well an attacker can reconstruct the image from
measurements sampled for a classification task. The sampler is frozen and attackers are trained on
its masks. Digits are rendered on the fly; their training and testing run together.
"""

from __future__ import annotations

from benchmarks.common.arguments import settings_of
from benchmarks.common.record import write_study
from benchmarks.tasks.options import parse_args
from benchmarks.tasks.report import page
from benchmarks.tasks.tables import TABLES


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.tables or TABLES:
        found = TABLES[name].measure(args)
        if found is not None:
            record = {"table": name, "settings": settings_of(args), **found}
            write_study(args.output_dir / f"tasks_{name}.json", record, args, page)


if __name__ == "__main__":
    main()
