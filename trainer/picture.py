"""The learning curve as a picture: loss and validation loss above, learning rate below."""

from __future__ import annotations

import logging
from pathlib import Path

from .curve import read_curve, thinned

PICTURE = "curve.png"
_POINTS = 1000
_SIZE = (8.0, 6.0)
_DPI = 120

logger = logging.getLogger(__name__)


def draw_curve(curve: Path, picture: Path, title: str) -> bool:
    """Writes the picture of a curve as PNG; False, with the reason in the log, where it cannot be drawn."""
    try:
        # Drawn without a screen, and loaded when training is over: it takes a second and some memory.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        points = thinned(read_curve(curve), _POINTS)
        steps = [point.step for point in points]
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        mark = "." if len(points) == 1 else ""
        above.plot(steps, [point.train_loss for point in points], label="training", marker=mark)
        measured = [(point.step, point.valid_loss) for point in points if point.valid_loss is not None]
        if measured:
            above.plot(*zip(*measured, strict=True), label="validation", marker="o", markersize=4)
        # Names may hold what the library would read as formulas.
        above.set_title(title, parse_math=False)
        above.set_ylabel("loss (nats a token)")
        above.set_ylim(bottom=0)
        above.legend()
        below.plot(steps, [point.lr for point in points], color="tab:green", marker=mark)
        below.set_ylabel("learning rate")
        below.set_xlabel("step")
        below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        for panel in (above, below):
            panel.grid(alpha=0.3)
        figure.savefig(picture, dpi=_DPI)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        # What was learned is whole without it.
        logger.warning("the learning curve cannot be drawn: %s", error)
        picture.unlink(missing_ok=True)
        return False
    return True
