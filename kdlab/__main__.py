"""``python -m kdlab``: what can be answered without importing PyTorch is answered here."""

import sys

HELP = """kdlab: knowledge distillation for image classification

usage: python -m kdlab VERB [options]

  fit        train a student (and its teacher first, if it is missing), test it, write a run folder
  validate   metrics of a trained student on the validation split
  test       metrics of a trained student on the test split
  predict    class and confidence of every test image, as CSV

  profile    parameters, MACs, latency, energy of networks, configs and runs, side by side
  analyze    what a student has learnt from its teacher: numbers and figures
  export     a trained student as one file: safetensors, torch.export or ONNX
  cache      what a cached teacher says about the training images, ahead of the runs that ask
  study      many runs from one file: grids, seeds, statistics, tables and figures
  report     tables and figures of a study, from its run folders
  sync       send runs to W&B that were tracked offline
  dashboard  a W&B workspace as a file: accuracy by method, cost against accuracy, losses by term
  list       what a config can name: methods, losses, teachers, models, data, profilers, configs
  completion a script that lets the shell complete verbs, options and names of configs

Start here (no data to download, about a minute on a laptop):

  python -m kdlab fit --config configs/digits/logit_matching.yaml

Options of a verb: python -m kdlab fit --help
"""


def run() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if __name__ != "__main__":  # the console script: finds one's own classes as `python -m` does
        sys.path.insert(0, "")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from kdlab import __version__

        print(f"kdlab {__version__}")
        sys.exit(0)
    from kdlab.cli import main

    sys.exit(main(arguments))


if __name__ == "__main__":
    run()
