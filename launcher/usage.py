"""What ``python -m launcher --help`` says.

It is written out, so that neither argparse nor anything else is loaded for it: on a login node it
has to be there at once. A test holds it to the options that there are.
"""

from launcher.commands import COMMANDS

USAGE = "python -m launcher [run] [options] [flags of run.py] [key=value …]"

_INDENT = "\n" + " " * 11
_LINES = "".join(
    f"       python -m launcher {name} {usage}\n".replace("\n[", f"{_INDENT}[")
    for name, (usage, _) in COMMANDS.items()
)
_WHAT_FOR = "".join(f"  {name:10} {what}\n" for name, (_, what) in COMMANDS.items())

HELP = f"""\
usage: {USAGE}
{_LINES}       python -m launcher image build|push|pull|pin|verify|list …

Submit each stage of a recipe as its own job, in canonical order.

options:
  --cluster NAME      where jobs run: local (the default), slurm, or debug, which is
                      this terminal, where breakpoint() works
  --container NAME    what stages run in: docker, podman, apptainer, enroot,
                      charliecloud, none (the host itself), or auto (the default)
  --recipe DIR        folder with a run.py (default: the working directory if it
                      has one, else the project's default recipe)
  --stages STAGE …    as for run.py (default: the recipe's)
  --follow            stay, show progress, end with a table of results
  --queue             wait for a launch that writes to the same folders, which is
                      otherwise a reason to refuse this one
  --dry-run           show what would be submitted; create and submit nothing
  --allow-unpinned    take an image by a tag, which may be another one tomorrow
  -h, --help          show this

Other flags go to the recipe's run.py. key=value changes a setting of launcher/conf.
Each of --training_config, --inference_config and --metrics_config that is not given
is the recipe's conf/training.yaml, inference.yaml or metrics.yaml, where it has one.

Without --follow the command returns once all jobs are submitted, and they go on by
themselves. With --follow, Ctrl-C cancels the launch. Later, from any terminal:

{_WHAT_FOR}
  image      make the images that stages run in, pin and verify them; image --help

examples:
  python -m launcher --stages train infer --follow
  python -m launcher --recipe egs3/fsdd/asr --training_config conf/training.yaml --dry-run
  python -m launcher status
"""
