"""The results of the scenarios, by the commands that their pages name, for the documents.

    python tests/benchmarks/scenario_results.py [NAME ...] [--photographs FOLDER] [--ordinary FOLDER] [--mnist FOLDER]

Runs each command in an empty folder, as a user would, and writes its results and wall time to docs/results/NAME.json,
and the figures named below to docs/pictures/. `enhance` needs a folder with the McMaster pictures, and one
with ordinary photographs that nothing was trained on.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
from results_files import write

COMMANDS = {
    "trebuchet": {"main": "", "throw": "throw --angle 35", "aim": "aim --distance 60 --wind -3"},
    "any_trebuchet": {
        "main": "",
        "seed_0": "train --seed 0",
        "seed_1": "train --seed 1",
        "seed_2": "train --seed 2",
        "compare": "compare",
    },
    "cartpole": {"main": ""},
    "pendulum": {"main": "train --policies 20", "optimum": "optimum", "guided": "guided"},
    "swingup": {"main": ""},
    "quadrotor": {"main": ""},
    "rocket": {"main": ""},
    "identify": {"main": "", "drag": "drag"},
    "buck_converter": {"main": "", "identify": "identify"},
    "drive_cycle": {"main": ""},
    "kinetics": {"main": "", "sample": "sample"},
    "neural_ode": {"main": "", "pelts": "pelts", "windows": "windows"},
    "derivatives": {"main": ""},
    "regression": {"main": "", "bound": "bound --problems 1000"},
    "classify": {"main": "", "mnist": "--data {mnist}"},
    "enhance": {
        "main": "",
        "noisy": "evaluate {photographs} --task noisy",
        "demosaic": "evaluate {photographs} --task demosaic",
        "noisy_ordinary": "evaluate {ordinary} --task noisy",
        "demosaic_ordinary": "evaluate {ordinary} --task demosaic",
        "ablation": "ablation",
        "recover": "recover",
    },
    "burst": {"main": ""},
    "retouch": {"main": ""},
    "deblur": {"main": ""},
    "fit_camera": {"main": ""},
    "isp_for_task": {"main": ""},
}
FIGURES = {
    "trebuchet": {"miss_map": "miss_map.png"},
    "any_trebuchet": {"miss_map": "any_trebuchet.png", "compare/compare": "any_trebuchet_compare.png"},
    "identify": {"band": "identify.png"},
    "buck_converter": {"start": "buck_converter.png"},
    "drive_cycle": {"voltage": "drive_cycle.png"},
    "kinetics": {"rich_in_A": "kinetics.png"},
    "neural_ode": {"learned": "neural_ode.png"},
    "derivatives": {"accuracy": "derivatives.png"},
    "regression": {"convergence": "regression.png"},
    "classify": {"network_Adam": "classify.png"},
    "enhance": {"stages": "enhance.jpg"},
    "burst": {"pictures": "burst.jpg"},
    "retouch": {"pictures": "retouch.jpg"},
    "deblur": {"motion": "deblur.jpg"},
    "fit_camera": {"pictures": "fit_camera.jpg", "curve": "fit_camera_curve.png"},
    "isp_for_task": {"pictures": "isp_for_task.png"},
}
"""Figures of a run, of the main command or of the one before the slash, and the names of their pictures."""
WIDTH = 960  # pixels, of pictures with photographs


def run(name: str, arguments: str, folder: Path) -> dict:
    """The results of a command of a scenario, and its wall time."""
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "scenarios" / f"{name}.py"), *shlex.split(arguments), "--json"]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return result | {"wall_seconds": time.perf_counter() - began}


def copy_figure(source: Path, target: Path) -> None:
    """Copies a figure; one with photographs becomes a JPEG file, which is a tenth of the size."""
    if target.suffix == ".png":
        shutil.copy(source, target)
        return
    figure = Image.open(source).convert("RGB")
    figure.resize((WIDTH, round(WIDTH * figure.height / figure.width))).save(target, quality=85, optimize=True)


def main() -> None:
    """Runs the commands and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*COMMANDS, []])
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--ordinary", type=Path)
    parser.add_argument("--mnist", type=Path)
    options = parser.parse_args()
    folders = {"photographs": options.photographs, "ordinary": options.ordinary, "mnist": options.mnist}
    for name in options.names or COMMANDS:
        results = {}
        for key, arguments in COMMANDS[name].items():
            if any(f"{{{word}}}" in arguments and folder is None for word, folder in folders.items()):
                print(f"{name} {arguments}: left out, because its folder is not given")
                continue
            with tempfile.TemporaryDirectory() as folder:
                named = {word: path and path.resolve() for word, path in folders.items()}
                results[key] = {"arguments": arguments} | run(name, arguments.format(**named), Path(folder))
                own = results[key].pop("run", None)
                for path, picture in FIGURES.get(name, {}).items():
                    command, _, figure = path.rpartition("/")
                    if key != (command or "main"):
                        continue
                    copy_figure(Path(folder) / own / "figures" / f"{figure}.png", ROOT / "docs" / "pictures" / picture)
        write(name, f"python tests/benchmarks/scenario_results.py {name}", {"commands": results})


if __name__ == "__main__":
    main()
