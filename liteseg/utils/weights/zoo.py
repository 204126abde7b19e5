"""The table of the zoo: published weights by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Model:
    """Weights with a name.

    Attributes:
        name: the published name of its config, or that in an index.
        url: of the `.pdparams` or archive: an address, or the path of a file.
        config: name of the shipped config; None: that in the archive.
        aliases: shorter names.
        data: dataset and split of `miou`.
        classes: number of classes.
        scale: by which images are resized before the network (`test_config.scales`).
        miou: as published, 0 to 1.
        size: bytes; of published networks about those of their arrays.
        sha256: of the file, in hexadecimal.
        is_encoder: weights of the encoder alone, which have no config.
    """

    name: str
    url: str
    config: Optional[str] = None
    aliases: tuple[str, ...] = ()
    data: str = ""
    classes: Optional[int] = None
    scale: Optional[float] = None
    miou: Optional[float] = None
    size: Optional[int] = None
    sha256: Optional[str] = None
    is_encoder: bool = False


_NETWORKS = "https://paddleseg.bj.bcebos.com/dygraph"
_ENCODERS = "https://bj.bcebos.com/paddleseg/dygraph"
_ENCODER_OF = {"t": "stdc1", "b": "stdc2"}
_BYTES = {"t": 32_612_820, "b": 49_537_876}


def _network(letter: str, data: str, recipe: str, alias: str, scale: float, miou: float) -> Model:
    name = f"pp_liteseg_{_ENCODER_OF[letter]}_{data}_{recipe}"
    return Model(
        name,
        f"{_NETWORKS}/{data}/{name}/model.pdparams",
        config=f"pp_liteseg/{name}",
        aliases=(alias,),
        data={"cityscapes": "Cityscapes val", "camvid": "CamVid test"}[data],
        classes={"cityscapes": 19, "camvid": 11}[data],
        scale=scale,
        miou=miou,
        size=_BYTES[letter],
    )


#: Names, addresses and mIoU as in PaddleSeg's configs/pp_liteseg/README.md. It has no checksums.
PUBLISHED: tuple[Model, ...] = (
    *(
        _network(
            letter,
            "cityscapes",
            f"1024x512_scale{scale}_160k",
            f"pp_liteseg_{letter}{number}_cityscapes",
            scale,
            miou,
        )
        for letter, number, scale, miou in (
            ("t", "1", 0.5, 0.7310),
            ("t", "2", 0.75, 0.7603),
            ("t", "", 1.0, 0.7704),
            ("b", "1", 0.5, 0.7525),
            ("b", "2", 0.75, 0.7875),
            ("b", "", 1.0, 0.7904),
        )
    ),
    _network("t", "camvid", "960x720_10k", "pp_liteseg_t_camvid", 1.0, 0.7330),
    _network("b", "camvid", "960x720_10k", "pp_liteseg_b_camvid", 1.0, 0.7510),
    *(
        Model(
            f"PP_STDCNet{number}",
            f"{_ENCODERS}/PP_STDCNet{number}.tar.gz",
            aliases=(f"stdc{number}_imagenet",),
            data="ImageNet (encoder)",
            is_encoder=True,
        )
        for number in (1, 2)
    ),
)
#: Used by `liteseg predict` if there is no run.
DEFAULT = PUBLISHED[0]


def find(name: str, models: tuple[Model, ...] = PUBLISHED) -> Optional[Model]:
    """The model of that name, alias or address; None if there is none."""
    return next((m for m in models if name in (m.name, m.url, *m.aliases)), None)


def nearest(name: str, models: tuple[Model, ...] = PUBLISHED) -> list[str]:
    """The names and aliases most similar to `name`."""
    known = [known for model in models for known in (*model.aliases, model.name)]
    return difflib.get_close_matches(name, known, n=3, cutoff=0.6)
