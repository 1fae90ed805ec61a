r"""Tasks read from undersampled k-space, in kind the tables of InfoMRI, on people never trained on.

    python training/build_bank.py --output runs/masses.npz --brains 400 --knees 0 --finding Mass
    python -m benchmarks.tasks --bank runs/masses.npz

    python training/build_bank.py --output runs/knees.npz --brains 0 --knees 2000
    python -m benchmarks.tasks --tables privacy_knees frontier --knees runs/knees.npz
    python -m benchmarks.tasks --tables privacy_digits   # no bank is needed

Networks are trained by ``training/train_task.py`` in folders of ``--runs``, where a run that was
stopped goes on, once for each of ``--seeds``; tables share what they have in common. Test people
are of seeds that no bank and no validation uses.

``privacy_*`` and ``frontier`` ask what somebody else sees in measurements that were sampled for a
classification: the sampler is frozen, and attackers are trained on its masks. Digits are rendered,
and trained and tested in one go.
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
