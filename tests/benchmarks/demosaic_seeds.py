"""PSNR of demosaickers that were trained with several seeds, on clean mosaics of two sets of pictures.

    python tests/benchmarks/demosaic_seeds.py --mcmaster FOLDER --ordinary FOLDER FILE ... [--write]

Each FILE is what `scenarios/enhance.py train --task demosaic --seed N --save FILE` wrote, and the folders are the
McMaster set and one of ordinary photographs. A demosaicker that wins on one of them alone has learned its statistics.
"""

import argparse
from pathlib import Path

from diffsim.image import menon, pretrained
from diffsim.image.io.pictures import read_folder
from diffsim.image.training.evaluate import mean_psnr, mosaics, run_tiles
from timing import keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--mcmaster", type=Path, required=True)
    parser.add_argument("--ordinary", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="also keep the results in docs/results/")
    options = parser.parse_args()
    chains = [pretrained.load_for_task("demosaic", path) for path in options.files]
    results = {}
    for name in ("mcmaster", "ordinary"):
        pairs = mosaics(read_folder(getattr(options, name)))
        ours = [mean_psnr(lambda m, chain=chain: run_tiles(chain, m), pairs) for chain in chains]
        results[name] = {"ours": ours, "least": min(ours), "menon": mean_psnr(menon, pairs)}
        values = ", ".join(f"{x:.2f}" for x in ours)
        print(f"{name}: {values} dB; Menon {results[name]['menon']:.2f}", flush=True)
    keep("demosaic_seeds", "demosaic_seeds.py --write", seeds={"number": len(chains)} | results)


if __name__ == "__main__":
    main()
