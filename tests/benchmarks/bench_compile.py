"""What a script compiles: `python tests/benchmarks/bench_compile.py SCRIPT [WORDS]`, as in `... scenarios/NAME.py`.

Runs the script in this process, as a user would, and prints each program that JAX compiled for it in the order of time,
with the seconds of tracing, lowering and compiling, and the lines that asked for it: of the library, and of the script.
Then the number of programs and the sums, and the CPU seconds of the process.
"""

import runpy
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax

TRACE, LOWER, COMPILE = (
    f"/jax/core/compile/{part}_duration" for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)
LIBRARY = str(Path(__file__).parents[2] / "diffsim")


@dataclass
class Program:
    name: str
    asked: str
    seconds: dict[str, float]


class Programs:
    """Listens to JAX; what it traced and lowered since the last program belongs to the next one compiled."""

    def __init__(self, script: str):
        self.script, self.compiled = str(Path(script).resolve()), []
        self._pending = dict.fromkeys((TRACE, LOWER, COMPILE), 0.0)
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, fun_name: str = "", **_) -> None:
        if event in self._pending:
            self._pending[event] += seconds
        if event == COMPILE:
            self.compiled.append(Program(fun_name, self._asked(), self._pending))
            self._pending = dict.fromkeys(self._pending, 0.0)

    def _asked(self) -> str:
        """The innermost line of the library and that of the script on the stack of calls."""
        lines, frame = {}, sys._getframe(2)
        while frame:
            name = frame.f_code.co_filename
            for root in (LIBRARY, self.script):
                if name.startswith(root):
                    lines.setdefault(root, f"{Path(name).name}:{frame.f_lineno}")
            frame = frame.f_back
        return " < ".join(lines.values())

    def table(self) -> str:
        rows = [f"{'':4s}{'trace':>8s}{'lower':>8s}{'XLA s':>8s}  program"]
        for number, program in enumerate(self.compiled, 1):
            seconds = "".join(f"{s:8.2f}" for s in program.seconds.values())
            rows.append(f"{number:4d}{seconds}  {program.name}  ({program.asked})")
        sums = (sum(p.seconds[part] for p in self.compiled) for part in (TRACE, LOWER, COMPILE))
        return "\n".join([*rows, "sum " + "".join(f"{s:8.2f}" for s in sums) + f"  {len(self.compiled)} programs"])


def main(script: str, *words: str) -> None:
    programs, began = Programs(script), time.perf_counter()
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        print(f"exit code {ended.code or 0}")
    print(programs.table())
    print(f"{time.perf_counter() - began:.1f} s, {time.process_time():.1f} CPU s")


if __name__ == "__main__":
    main(*sys.argv[1:])
