"""Configs of earlier versions are read as they are written now, and their hashes stay."""

import copy
import json
import pathlib
import shutil

import pytest
from flax.traverse_util import unflatten_dict

from experiments.configs import cifar_lt, digits, modelnet10, sst
from experiments.configs.earlier import read, read_given, written_earlier
from experiments.program.experiment import own_fields
from experiments.runs.identity import fingerprint_of, flatten
from experiments.runs.network_files import read_about, write_network
from experiments.runs.restoring import restore
from experiments.runs.training import train
from experiments.studies.records import CONFIGS, key_of
from otrw_jax.files import read_json, write_json
from tests.experiments.shared import lines_of

RESULTS = pathlib.Path(__file__).parents[3] / "results"
CONFIGS_NOW = {
    "digits": digits.get_config(),
    "cifar": cifar_lt.get_config("family=ldam,protocol=short"),
    "modelnet10": modelnet10.get_config("backbone=pointnet"),
    "sst": sst.get_config("sst5"),
}


def as_json(config):
    return json.loads(json.dumps(config))


@pytest.mark.parametrize("config", CONFIGS_NOW.values(), ids=CONFIGS_NOW)
def test_what_was_written_is_read_as_what_is_written_now(config):
    now = as_json(config.to_dict())
    before = written_earlier(flatten(now))
    assert None not in before.values()
    assert before["seeds_at_once"] == before["steps_per_call"] == -1
    assert before["stage1.levers.smoothing_tail"] == before["options.tau_norm.tau"] == -1.0
    assert ("model.tanh" in before) == (config.data.name == "sst5")
    # Flat, as in records, and nested, as in run directories; and what is of now stays.
    assert read(before) == flatten(now)
    assert read(unflatten_dict(before, sep=".")) == now
    assert read(now) == now and read(flatten(now)) == flatten(now)
    assert written_earlier(before) == before


def test_numbers_that_stand_for_themselves_stay():
    fields = {"stage1.levers.smoothing_tail": 0.0, "seeds_at_once": 0, "options.focal.gamma": -1.0}
    assert read(fields) == fields


def test_options_that_were_not_there_yet_did_what_they_did():
    config = own_fields(cifar_lt.get_config("recipe=mwn")).to_dict()
    del config["options"]["mwn"]["augment_meta"]
    assert read(config)["options"]["mwn"]["augment_meta"] == "never"
    assert "augment_meta" not in config["options"]["mwn"]
    config = flatten(own_fields(cifar_lt.get_config("recipe=ib")).to_dict())
    del config["options.ib.rate_factor"]
    assert read(config)["options.ib.rate_factor"] == 1.0
    config = flatten(own_fields(cifar_lt.get_config("recipe=metasaug_ldam")).to_dict())
    assert config.pop("options.metasaug_ldam.covariance") == "full"
    assert read(config)["options.metasaug_ldam.covariance"] == "full"


@pytest.mark.parametrize(
    ("get_config", "arguments", "fingerprint"),
    [
        (digits.get_config, "recipe=otrw_paper", "643f5aad8b8eb3b4"),
        (digits.get_config, "recipe=tau_norm", "100188075907acf7"),
        (sst.get_config, "sst2,recipe=otrw_net", "6451cd2f3834333e"),
        (cifar_lt.get_config, "recipe=mwn", "8a529a6ad31ebe38"),
        (cifar_lt.get_config, "recipe=metasaug_ce", "911e90fc8223776e"),
    ],
)
def test_a_config_has_the_fingerprint_that_it_had(get_config, arguments, fingerprint):
    """Those of the versions that wrote -1, as checkpoints carry them."""
    assert fingerprint_of(own_fields(get_config(arguments)).to_dict()) == fingerprint


def test_the_configs_of_records_have_the_keys_that_they_had():
    for line in (RESULTS / CONFIGS).read_text().splitlines():
        one = json.loads(line)
        assert key_of(one["config"]) == one["key"] == key_of(read(one["config"]))


def test_a_number_that_stood_for_none_may_still_be_given():
    config = digits.get_config()
    config.update_from_flattened_dict(
        {"seeds_at_once": -1, "stage2.cb.levers.smoothing_tail": -1.0}
    )
    found = read_given(config)
    assert found.seeds_at_once is None and found.stage2.cb.levers.smoothing_tail is None
    assert config.seeds_at_once == -1


def test_a_run_that_was_written_earlier_goes_on_and_is_restored(
    whole_run, experiment, tmp_path, assert_same_bits
):
    """The directory of a finished run as it was written before, with its fields and checkpoints."""
    workdir, results = whole_run
    shutil.copytree(workdir, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    before = read_json(path)
    before["seeds_at_once"] = before["steps_per_call"] = -1
    for stage in (before["stage1"], before["stage2"]["otrw_paper"]):
        stage["levers"]["smoothing_tail"] = -1.0
    del before["model"]["tanh"]
    write_json(path, before)
    found, wanted = (restore(folder) for folder in (tmp_path / "run", workdir))
    assert_same_bits(found.state, wanted.state)
    assert read_json(path) == before  # Reading changes nothing.
    assert train(experiment, tmp_path / "run", 0, 0) == results
    assert lines_of(tmp_path / "run") == lines_of(workdir)
    # Its first stage is another's.
    other = train(experiment, tmp_path / "other", 0, 0, stage1_from=tmp_path / "run")
    assert other == results
    altered = copy.deepcopy(before)
    altered["stage1"]["levers"]["smoothing_tail"] = 0.5
    write_json(path, altered)
    with pytest.raises(ValueError, match="is not the config by which the checkpoints"):
        restore(tmp_path / "run")


def test_the_header_of_a_network_file_is_read_as_it_is_written_now(tmp_path):
    now = flatten(own_fields(digits.get_config("recipe=ce")).to_dict())
    path = tmp_path / "network.safetensors"
    write_network(path, {}, {"config": written_earlier(now)})
    assert read_about(path)["config"] == now
