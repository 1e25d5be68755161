"""Who plays: the identity of an actor, everything about a face that no expression changes."""

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKINS: tuple[Colour, ...] = (
    (250, 216, 194),
    (243, 204, 176),
    (233, 188, 156),
    (219, 168, 132),
    (199, 146, 108),
    (173, 120, 84),
    (146, 97, 67),
    (118, 77, 54),
    (95, 62, 46),
)
TONES = (3, 1, 5, 7, 0, 4, 2, 8, 6)  # the order in which neighbours get their skin
HAIRS: dict[str, Colour] = {
    "black": (34, 29, 30),
    "espresso": (58, 40, 31),
    "brown": (92, 61, 40),
    "chestnut": (106, 66, 46),
    "light brown": (138, 106, 76),
    "blond": (205, 165, 104),
    "copper": (168, 84, 42),
    "grey": (150, 147, 146),
    "white": (214, 210, 205),
    "plum": (112, 46, 82),
    "teal": (40, 104, 112),
}
EYES: dict[str, Colour] = {
    "dark brown": (62, 38, 24),
    "brown": (104, 64, 34),
    "hazel": (128, 98, 54),
    "green": (92, 124, 82),
    "blue": (84, 130, 172),
    "grey": (122, 138, 150),
}
HIS_STYLES = ("part", "crop", "quiff", "bald", "curls", "messy", "crop", "long")
HER_STYLES = ("long", "bob", "bun", "afro", "fringe", "waves", "scarf", "pixie")
BEARDS = ("none", "stubble", "none", "full", "none", "goatee", "moustache", "none")
CLOTHES = ("crew", "shirt", "vneck", "hoodie", "blazer", "turtleneck")
FABRICS: tuple[Colour, ...] = (
    (52, 78, 112),
    (170, 62, 58),
    (226, 222, 212),
    (62, 96, 80),
    (206, 160, 74),
    (96, 70, 112),
    (44, 46, 54),
    (120, 160, 176),
    (196, 120, 110),
    (128, 128, 96),
)


@dataclass(frozen=True)
class Actor:
    """One identity. Lengths are in units of the distance between the eyes, colours are RGB 0..255, shares 0..1."""

    number: int
    skin: Colour
    feminine: float
    age: float
    head_width: float
    jaw: float
    chin_width: float
    chin_y: float
    cheeks: float
    brow_y: float
    brow_thick: float
    brow_arch: float
    brow_slant: float
    brow_ridge: float
    eye_wide: float
    eye_open: float
    eye_tilt: float
    eye_colour: Colour
    lid_fold: float
    nose_y: float
    nose_wide: float
    nose_high: float
    mouth_y: float
    mouth_wide: float
    lip_upper: float
    lip_lower: float
    lip_colour: Colour
    mouth_rest: float
    hair_style: str
    hair_colour: Colour
    hair_volume: float
    hair_length: float
    hair_part: float
    hairline: float
    beard: str
    glasses: str
    glasses_colour: Colour
    freckles: float
    makeup: float
    earrings: bool
    clothes: str
    fabric: Colour
    fabric_second: Colour
    neck: float


def cast(number: int) -> Actor:
    """The actor with this number, always the same one.

    The broad traits (skin, hair style, clothes) go round with the number, so that any two dozen neighbours are a varied
    company; the rest is drawn from the number's own random generator.
    """
    rng = np.random.default_rng([20_817, number])

    def near(low: float, high: float) -> float:
        return float(low + (high - low) * rng.beta(2, 2))

    woman = number % 2 == 0
    turn = number // 2
    tone = TONES[(number - 1) % len(TONES)]
    skin = _colour(np.clip([part * near(0.97, 1.03) for part in SKINS[tone]], 0, 255))
    age = float((0.05, 0.25, 0.15, 0.55, 0.3, 0.9)[(number + turn) % 6] * near(0.8, 1.2))
    style = (HER_STYLES if woman else HIS_STYLES)[turn % 8]
    if style == "afro" and tone < 4:
        style = "waves"
    if style == "curls" and tone > 6:
        style = "afro"
    beard = "none" if woman else BEARDS[int(rng.integers(0, len(BEARDS)))]
    if age < 0.15 and beard == "full":
        beard = "stubble"
    glasses = ("round", "square", "thin")[int(rng.integers(0, 3))] if rng.random() < 0.2 else "none"
    fabric = FABRICS[(number * 3 + turn) % len(FABRICS)]
    second = FABRICS[(number * 3 + turn + int(rng.integers(1, len(FABRICS)))) % len(FABRICS)]
    makeup = near(0.2, 0.9) if woman else 0.0
    deep = tone / (len(SKINS) - 1)
    natural = np.array(skin) * (0.86, 0.62 + 0.06 * deep, 0.62 + 0.08 * deep)
    stick = np.array([(186, 52, 62), (168, 70, 80), (196, 98, 92), (130, 40, 56)][int(rng.integers(0, 4))])
    lips = natural + (stick - natural) * (0.65 * makeup)
    return Actor(
        number=number,
        skin=skin,
        feminine=float(woman) * 0.75 + near(0.0, 0.25),
        age=age,
        head_width=near(0.94, 1.07) - (0.02 if woman else 0.0),
        jaw=near(0.82, 0.96) if woman else near(0.93, 1.12),
        chin_width=near(0.72, 1.0) if woman else near(0.9, 1.3),
        chin_y=near(1.74, 1.9) if woman else near(1.82, 1.98),
        cheeks=near(0.6, 1.4),
        brow_y=near(-0.42, -0.36) if woman else near(-0.38, -0.32),
        brow_thick=near(0.032, 0.046) if woman else near(0.042, 0.06),
        brow_arch=near(0.03, 0.09) if woman else near(0.01, 0.06),
        brow_slant=near(-0.03, 0.035),
        brow_ridge=near(0.2, 0.7) if woman else near(0.7, 1.5),
        eye_wide=near(0.262, 0.302),
        eye_open=near(0.9, 1.2) if woman else near(0.82, 1.08),
        eye_tilt=near(-0.02, 0.05),
        eye_colour=_eye_colour(rng, tone),
        lid_fold=near(0.0, 0.3) if rng.random() < 0.25 else near(0.7, 1.2),
        nose_y=near(0.57, 0.66),
        nose_wide=near(0.82, 1.05) + 0.22 * deep,
        nose_high=near(0.8, 1.2) - 0.15 * deep,
        mouth_y=near(1.06, 1.15),
        mouth_wide=near(0.36, 0.44),
        lip_upper=near(0.06, 0.09) + 0.025 * deep + 0.012 * woman,
        lip_lower=near(0.085, 0.115) + 0.03 * deep + 0.012 * woman,
        lip_colour=_colour(lips),
        mouth_rest=near(-0.03, 0.022),
        hair_style=style,
        hair_colour=_hair_colour(rng, tone, age),
        hair_volume=near(0.7, 1.3),
        hair_length=near(0.75, 1.25),
        hair_part=float(rng.choice([-1, 1])) * near(0.15, 0.55),
        hairline=near(-0.07, 0.05) - (0.08 * age if not woman else 0.0),
        beard=beard,
        glasses=glasses,
        glasses_colour=((32, 30, 34), (92, 58, 36), (150, 120, 70), (130, 40, 44))[int(rng.integers(0, 4))],
        freckles=near(0.3, 1.0) if tone < 4 and rng.random() < 0.3 else 0.0,
        makeup=makeup,
        earrings=bool(woman and rng.random() < 0.5),
        clothes=CLOTHES[(number + turn) % len(CLOTHES)],
        fabric=fabric,
        fabric_second=second,
        neck=near(0.6, 0.68) if woman else near(0.7, 0.82),
    )


def _colour(parts: np.ndarray) -> Colour:
    red, green, blue = (float(part) for part in parts)
    return red, green, blue


def _eye_colour(rng: np.random.Generator, tone: int) -> Colour:
    names = list(EYES)
    names = names if tone < 3 else names[:4] if tone < 5 else names[:2]
    colour = EYES[names[int(rng.integers(0, len(names)))]]
    return _colour(np.array(colour) * rng.uniform(0.9, 1.12, 3))


def _hair_colour(rng: np.random.Generator, tone: int, age: float) -> Colour:
    if age > 0.75:
        names = ["grey", "white"]
    elif rng.random() < 0.05:
        names = ["plum", "teal"]
    elif tone < 3:
        names = ["black", "espresso", "brown", "chestnut", "light brown", "blond", "copper", "blond"]
    elif tone < 5:
        names = ["black", "espresso", "brown", "chestnut", "chestnut", "light brown"]
    else:
        names = ["black", "espresso", "espresso", "brown"]
    colour = HAIRS[names[int(rng.integers(0, len(names)))]]
    return _colour(np.array(colour) * rng.uniform(0.92, 1.1))
