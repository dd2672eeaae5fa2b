"""`python -m bigsmall.training CONFIG -o FOLDER [key=value ...]`: the same as `bigsmall.training.train`."""

import argparse

from .run import train

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bigsmall.training", description=__doc__)
    parser.add_argument("config", help="a YAML file, or 'default' for the model that ships")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the configuration")
    parser.add_argument("-o", "--output", required=True, help="the run's folder; a run begun there is taken up")
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate (2)")
    arguments = parser.parse_args()
    print(train(arguments.config, arguments.output, arguments.overrides, workers=arguments.workers))
