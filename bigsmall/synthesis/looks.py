"""What one person looks like: colours, proportions, age, hair, beard, glasses and clothes, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SKIN = np.array([[0.93, 0.74, 0.62], [0.80, 0.59, 0.45], [0.60, 0.41, 0.29], [0.37, 0.25, 0.18]])  # light to dark
HAIR = np.array([[0.10, 0.08, 0.07], [0.22, 0.14, 0.09], [0.45, 0.32, 0.18], [0.55, 0.53, 0.51], [0.30, 0.12, 0.06]])
IRIS = np.array([[0.20, 0.11, 0.06], [0.22, 0.32, 0.42], [0.24, 0.28, 0.14]])

# Where proportions vary: (u, v) of a place, its width and height, and the standard deviations of how far it is shifted.
PLACES = (
    (0.0, -0.65, 2.0, 0.20, 0.0, 0.05),  # forehead
    (0.0, -0.28, 2.0, 0.10, 0.0, 0.022),  # brows
    (0.0, -0.08, 2.0, 0.14, 0.0, 0.03),  # eyes
    (0.0, 0.30, 0.5, 0.14, 0.015, 0.04),  # nose
    (0.0, 0.58, 0.6, 0.14, 0.015, 0.04),  # mouth
    (0.0, 1.00, 1.0, 0.20, 0.02, 0.05),  # chin
    (0.31, -0.1, 0.14, 0.2, 0.02, 0.008),  # each eye by itself
    (-0.31, -0.1, 0.14, 0.2, 0.02, 0.008),
)


@dataclass(frozen=True)
class Look:
    """One person."""

    skin: np.ndarray
    hair: np.ndarray  # or what is worn over it
    brow: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    cloth: np.ndarray
    width: float  # of the face; 1 is average, and so on
    jaw: float
    eyes: float
    brows: float
    nose: float
    mouth: float
    hair_line: float
    hair_length: float
    bald: float  # 0 no, 1 wholly
    scarf: bool  # over the hair, of the clothes' colour
    stubble: float
    beard: float
    age: float  # 0 smooth to 1 wrinkled
    glasses: float  # how dark the frame is, 0: none
    collar: float  # 0 round to 1 a deep V
    stripes: float
    light: np.ndarray  # direction towards the light: right, down, out of the picture
    contrast: float  # of light and shadow
    shine: float
    places: np.ndarray  # (len(PLACES), 2): how far each place is shifted
    strength: np.ndarray  # (2, 12): of each AU's muscles, left and right
    roughness: np.ndarray  # phases and frequencies of the skin's and the clothes' mottling

    @classmethod
    def draw(cls, rng: np.random.Generator, skin_tone: float | None) -> Look:
        tone = (rng.uniform() if skin_tone is None else skin_tone) * (len(SKIN) - 1)
        low = min(int(tone), len(SKIN) - 2)
        skin = SKIN[low] + (tone - low) * (SKIN[low + 1] - SKIN[low])
        skin = skin * (1 + rng.uniform(-0.05, 0.05, 3))
        light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.05), 1.0])
        bearded = rng.uniform() < 0.35
        hair = HAIR[rng.integers(len(HAIR))] * rng.uniform(0.6, 1.1)
        cloth = rng.uniform(0.06, 0.9) * (1 + rng.uniform(0, 0.6) * rng.uniform(-1, 1, 3))
        scarf = bool(rng.uniform() < 0.06 and not bearded)
        rosy = rng.uniform(0.75, 1.1)
        return cls(
            skin=skin,
            hair=hair if not scarf else rng.uniform(0.1, 0.7, 3),
            brow=0.8 * hair,
            lips=skin * [0.90, 0.62 * rosy, 0.66 * rosy],
            iris=IRIS[rng.integers(3)],
            cloth=np.clip(cloth, 0.03, 0.95),
            width=rng.uniform(0.92, 1.08),
            jaw=rng.uniform(0.80, 1.15),
            eyes=rng.uniform(0.88, 1.12),
            brows=rng.uniform(0.6, 1.4),
            nose=rng.uniform(0.85, 1.25),
            mouth=rng.uniform(0.88, 1.16),
            hair_line=rng.uniform(-0.85, -0.62),
            hair_length=0.9 if scarf else rng.choice([-0.25, -0.1, 0.1, 0.5, 0.9]),
            bald=0.0 if scarf else max(0.0, min(1.0, rng.uniform(-3, 1.4))),
            scarf=scarf,
            stubble=rng.uniform(0, 0.4) * bearded,
            beard=rng.uniform(0.4, 1) * float(bearded and rng.uniform() < 0.55),
            age=max(0.0, rng.uniform(-0.4, 1)),
            glasses=rng.uniform(0.5, 1) * float(rng.uniform() < 0.25),
            collar=rng.uniform(0, 1) * float(rng.uniform() < 0.6),
            stripes=rng.uniform(0, 0.5) * float(rng.uniform() < 0.4),
            light=light / np.linalg.norm(light),
            contrast=rng.uniform(0.45, 0.75),
            shine=rng.uniform(0.04, 0.20),
            places=np.array([rng.normal(0, 1, 2) * place[4:] for place in PLACES]),
            strength=rng.uniform(0.8, 1.2, 12) * (1 + np.array([[-1], [1]]) * rng.normal(0, 0.12, 12)),
            roughness=rng.uniform(0, 1, (4, 16)),
        )

    def canonical(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where on the average face each point of this one is: eyes, nose and mouth sit differently on every face."""
        shift_u, shift_v = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32), np.float32(0)
        for (u0, v0, su, sv, *_), (du, dv) in zip(PLACES, self.places.tolist(), strict=True):
            near = np.exp(-0.5 * ((u - u0) / su) ** 2) * np.exp(-0.5 * ((v - v0) / sv) ** 2)
            shift_u, shift_v = shift_u + du * near, shift_v + dv * near
        return u - shift_u, v - shift_v
