"""How the book's figures look: one style, colors that color-blind readers tell apart."""

from __future__ import annotations

import matplotlib.pyplot as plt

# Okabe and Ito's palette without its yellow, which is too pale for lines on white.
COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "gold": "#E69F00",
    "black": "#222222",
}


def use_book_style() -> None:
    """Sets matplotlib's defaults to the style of the book's figures."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=list(COLORS.values())),
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.figsize": (6.4, 2.8),
            "font.size": 10,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


def draw_spring(ax, position: float, rest: float = 2.0) -> None:
    """Draws a mass on a spring, pulled down by `position` from its place of rest.

    Args:
        ax: matplotlib axes, which become bare.
        position: in meters, positive is down.
        rest: length of the spring at rest, in meters.
    """
    end = rest + position
    coils = 9
    heights = (
        [0.0] + [end * (i + 0.5) / coils for i in range(coils)] + [end]
    )
    sides = [0.0] + [0.18 * (-1) ** i for i in range(coils)] + [0.0]
    ax.plot(
        sides,
        [-h for h in heights],
        color=COLORS["black"],
        linewidth=1.2,
    )
    ax.plot([-0.5, 0.5], [0, 0], color=COLORS["black"], linewidth=3)
    ax.add_patch(
        plt.Rectangle(
            (-0.3, -end - 0.5), 0.6, 0.5, color=COLORS["blue"]
        )
    )
    ax.axhline(
        -rest - 0.25, color="#555555", linewidth=0.8, linestyle=":"
    )
    ax.set(xlim=(-0.8, 0.8), ylim=(-rest - 2.0, 0.3), aspect="equal")
    ax.axis("off")


def heat_map(ax, values, *, label: str, cmap: str = "viridis"):
    """Shows a (rows, columns) array as colored cells with a labelled color bar.

    Args:
        ax: matplotlib axes.
        values: (rows, columns) numbers; row 0 is on top.
        label: what the color means, with its unit.
        cmap: matplotlib color map; the default reads well in gray and for color-blind readers.

    Returns:
        The image, to change its limits or ticks.
    """
    image = ax.imshow(
        values, aspect="auto", cmap=cmap, interpolation="nearest"
    )
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label=label)
    return image


# Boxes of each plan, from below: name -> (x, y, label); and which leads to which.
BLOCK_PLANS = {
    "H3": (
        {
            "u": (1, 0, "u"),
            "q": (0, 1, "q"),
            "k": (1, 1, "k"),
            "v": (2, 1, "v"),
            "shift": (1, 2, "shift"),
            "kv": (1.5, 3, "×"),
            "ssm": (1.5, 4, "SSM"),
            "gate": (0.75, 5, "×"),
            "out": (0.75, 6, "out"),
        },
        "u-q u-k u-v k-shift shift-kv v-kv kv-ssm ssm-gate q-gate gate-out",
    ),
    "gated MLP": (
        {
            "u": (1, 0, "u"),
            "x": (0.4, 1, "widen"),
            "z": (1.6, 1, "widen"),
            "silu": (1.6, 4, "silu"),
            "gate": (1, 5, "×"),
            "out": (1, 6, "narrow"),
        },
        "u-x u-z z-silu silu-gate x-gate gate-out",
    ),
    "Mamba": (
        {
            "u": (1, 0, "u"),
            "x": (0.4, 1, "widen"),
            "z": (1.6, 1, "widen"),
            "conv": (0.4, 2, "conv"),
            "bend": (0.4, 3, "silu"),
            "ssm": (0.4, 4, "SSM"),
            "silu": (1.6, 4, "silu"),
            "gate": (1, 5, "×"),
            "out": (1, 6, "narrow"),
        },
        "u-x u-z x-conv conv-bend bend-ssm ssm-gate z-silu silu-gate gate-out",
    ),
}


def draw_block_plan(ax, name: str) -> None:
    """Draws a layer as boxes and arrows, its input below.

    Args:
        ax: matplotlib axes, which become bare.
        name: "H3", "gated MLP" or "Mamba".
    """
    boxes, arrows = BLOCK_PLANS[name]
    over_time = {"conv", "ssm", "shift"}
    for box, (x, y, label) in boxes.items():
        color = COLORS["gold"] if box in over_time else "#EEEEEE"
        style = "circle" if label == "×" else "round"
        ax.text(
            x,
            y,
            label,
            ha="center",
            va="center",
            fontsize=9,
            bbox={
                "boxstyle": f"{style},pad=0.3",
                "fc": color,
                "ec": "black",
            },
        )
    for arrow in arrows.split():
        start, end = (boxes[box][:2] for box in arrow.split("-"))
        ax.annotate(
            "",
            end,
            start,
            arrowprops={
                "arrowstyle": "->",
                "shrinkA": 12,
                "shrinkB": 12,
                "color": "gray",
            },
        )
    ax.set(xlim=(-0.6, 2.6), ylim=(-0.5, 6.6), title=name)
    ax.axis("off")
