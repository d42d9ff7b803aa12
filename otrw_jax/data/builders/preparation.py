"""The preparation of a TFDS dataset: from what the user gives, or by download."""

import contextlib
import io
import pathlib
import textwrap

import tensorflow_datasets as tfds

from otrw_jax.data.builders.manual import SourceError


class DatasetNotFound(FileNotFoundError):
    """The dataset is not in the data folder and cannot be made there."""


def prepare(
    builder: tfds.core.DatasetBuilder,
    folder: pathlib.Path,
    root: pathlib.Path,
    manual: pathlib.Path,
) -> None:
    """Writes the dataset; a concurrent preparation that finishes first is as good.

    Args:
        builder: the dataset's.
        folder: where the builder writes it.
        root: TFDS's data folder.
        manual: the folder with files that the user gives.

    Raises:
        DatasetNotFound: there is nothing to make it of, and it cannot be downloaded.
        SourceError: what the user gives cannot be used.
    """
    try:
        _check_reachable(builder, root, manual)
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            builder.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(manual_dir=manual),
            )
    except Exception as error:
        if folder.exists():
            return
        if isinstance(error, SourceError) or not hasattr(builder, "archive_url"):
            raise
        raise DatasetNotFound(_how_to_get(builder, folder, root, manual, error)) from error


def brief(error: Exception) -> str:
    """The kind of an error and the start of its message, on one line."""
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder='…')}"


def _check_reachable(
    builder: tfds.core.DatasetBuilder, root: pathlib.Path, manual: pathlib.Path
) -> None:
    """Fails at once where TFDS would try again for minutes."""
    url = getattr(builder, "archive_url", None)
    if url is None or (hasattr(builder, "find") and builder.find(manual) is not None):
        return
    archive = url.rsplit("/", 1)[1]
    stem, suffix = archive.removesuffix(".tar.gz").removesuffix(".zip"), archive[-3:]
    found = (*root.glob(f"downloads/**/*{stem}*{suffix}"), *manual.glob(archive))
    if any(".tmp." not in path.parent.name for path in found):
        return  # The archive lies in the download folder.
    import requests  # TFDS's own client: the same proxies, the same certificates.

    requests.head(url, timeout=10).close()


def _how_to_get(
    builder: tfds.core.DatasetBuilder,
    folder: pathlib.Path,
    root: pathlib.Path,
    manual: pathlib.Path,
    error: Exception,
) -> str:
    url = builder.archive_url
    config = builder.builder_config
    name = config.name if config else builder.name
    wanted = builder.MANUAL_DOWNLOAD_INSTRUCTIONS or url.rsplit("/", 1)[1]
    return (
        f"{name} is not in {folder}, and the attempt to download and prepare it "
        f"failed ({brief(error)}). Either run `python -m otrw_jax.data.sources {name} --data_dir "
        f"DIR` on a machine with internet access and copy DIR/{builder.name} to "
        f"{root / builder.name}; or put {wanted} from {url} into {manual}; or, if the "
        "dataset lies elsewhere, name its TFDS folder by data_dir or TFDS_DATA_DIR"
    )
