"""The file of weights that are given by name, path, run directory or address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Optional, Union

from liteseg.errors import UserError
from liteseg.utils.files import read_json, read_regular, require_contained
from liteseg.utils.text import redacted
from liteseg.utils.weights import safe_pickle
from liteseg.utils.weights.archive import SUFFIXES, WEIGHTS_NAME, unpack_weights
from liteseg.utils.weights.download import cache_home, cache_path, fetch, is_url, verify
from liteseg.utils.weights.index import own_models
from liteseg.utils.weights.zoo import PUBLISHED, Model, find, nearest

# Places of the weights in a run directory, a checkpoint, or PaddleSeg's output directory.
_IN_A_DIRECTORY = ("checkpoints/best", "checkpoints/last", "", "best", "last", "best_model")


def models() -> tuple[Model, ...]:
    """Those of `$LITESEG_ZOO`, then the published ones; the first of a name counts.

    Raises:
        UserError: an index cannot be read.
    """
    own = own_models()
    names = {model.name for model in own}
    return (*own, *(model for model in PUBLISHED if model.name not in names))


def model_of(source: str | Path) -> Optional[Model]:
    """The model that a name, an alias or a published address means; None for other weights.

    An existing file or folder of that name comes first.

    Raises:
        UserError: an index of `$LITESEG_ZOO` cannot be read.
    """
    text = str(source)
    published = find(text, PUBLISHED)
    if is_url(text):
        return published and find(published.name, models())
    if os.path.exists(os.path.expanduser(text)) or os.sep in text:
        return None
    return find(published.name if published else text, models())


def config_of_model(name: str) -> Union[str, Path, None]:
    """The name of a model's shipped config, or the file in its pack; None: no model is named so.

    Raises:
        UserError: the model has no config, or its pack cannot be downloaded or read.
    """
    model = model_of(name)
    if model is None:
        return None
    if model.config is not None:
        return model.config
    has_pack = is_archive(model.url) and not model.is_encoder
    file = resolve(name).with_name("config.yml") if has_pack else None
    if file is None or not file.is_file():
        raise UserError(
            f"{name}: these weights come without a config (`liteseg models show {name}`)"
        )
    return file


def cached_file(model: Model) -> Path:
    """The file of a model, which may not have been downloaded yet."""
    return cache_path(model.url) if is_url(model.url) else Path(model.url)


def resolve(source: str | Path, sha256: Optional[str] = None) -> Path:
    """Find the weights file of a source; download and unpack it if needed.

    Args:
        source: the name of a model; a weights file; a `.tar.gz`, `.tar` or `.zip` with one
            `model.pdparams`; a run or checkpoint directory (the best checkpoint comes first); or
            the address of a file or archive (http, https or an object store), which may end in
            `#sha256=<hex>`. Downloads are kept in `cache_home()`.
        sha256: expected checksum of the file or archive, in hexadecimal.

    Raises:
        UserError: the file is missing, or it cannot be downloaded, verified or unpacked; the
            run directory contains links that leave it.
    """
    if "***" in str(source):
        raise UserError(
            f"{source}: the password or query of this address was left out of config.yml; "
            "give the whole address with --set, or null if other weights are loaded"
        )
    model = model_of(source)
    if model is not None:
        source, sha256 = model.url, sha256 or model.sha256
    if is_url(source):
        url, mark, given = str(source).partition("#sha256=")
        sha256 = given if mark else sha256
        path = fetch(url, sha256, check=_check(url), remember=model is not None)
    else:
        path = _local(Path(os.path.expanduser(source)))
        if sha256 is not None:
            verify(path, sha256, str(path), "check that it is the intended file")
    if is_archive(path):
        path = unpack_weights(path, cache_home() / "unpacked")
    _verify_pack(path)
    return path


def is_archive(path: str | Path) -> bool:
    """Whether weights have to be unpacked."""
    return str(path).partition("#")[0].partition("?")[0].lower().endswith(SUFFIXES)


def _verify_pack(weights: Path) -> None:
    """Raise UserError if the pack that contains the weights lists another checksum."""
    try:
        listed = read_json(weights.with_name("pack.json"))["files"][weights.name]
    except (OSError, ValueError, KeyError, TypeError):
        return
    verify(weights, str(listed), str(weights), "the pack is damaged: get it again, or pack it anew")


def _check(url: str) -> Callable[[Path], None]:
    """Returns a function that raises UserError if a received file contains no weights."""

    def check(part: Path) -> None:
        name = cache_path(url).name
        try:
            if is_archive(name):
                unpack_weights(part, cache_home() / "unpacked", name)
            else:
                safe_pickle.loads(read_regular(part), str(part))
        except UserError as error:
            raise UserError(str(error).replace(str(part), redacted(url))) from None

    return check


def nearest_names(name: str) -> list[str]:
    """The names of models most similar to `name`; none if an index cannot be read."""
    try:
        return nearest(name, models())
    except UserError:
        return nearest(name)


def missing(source: str | Path) -> UserError:
    """The error for weights that do not exist."""
    near = nearest_names(str(source))
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return UserError(
        f"{source} does not exist; expected a weights file, a run directory, an address, or the "
        f"name of a model (`liteseg models` lists them){hint}"
    )


def _local(path: Path) -> Path:
    folder = path.absolute() if os.path.isdir(path) else path.absolute().parent
    run = next((f.parent for f in (folder, folder.parent) if f.name == "checkpoints"), None)
    if run or (folder / "checkpoints").is_dir():  # a run, perhaps of a stranger
        require_contained(run or folder)
    if os.path.isfile(path):
        return path
    if not os.path.exists(path):
        raise missing(path)
    if not os.path.isdir(path):
        raise UserError(f"{path}: is not a regular file; give a weights file or a run directory")
    for place in _IN_A_DIRECTORY:
        if (path / place / WEIGHTS_NAME).is_file():
            return path / place / WEIGHTS_NAME
    raise UserError(
        f"{path} contains no {WEIGHTS_NAME}, neither directly nor in checkpoints/best or "
        "checkpoints/last; give a run directory with a checkpoint, or the file"
    )
