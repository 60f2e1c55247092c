"""The modules and commands under their earlier names, which documents and notebooks give, are those of today."""

import importlib

import pytest

MODULES = {
    "world_models.data.ecg_monolith": "world_models.data.ecg.monolith",
    "world_models.data.ehr_load": "world_models.data.ehr.load",
    "world_models.data.meds_writer": "world_models.data.ehr.meds.writer",
    "world_models.data.wfdb_reader": "world_models.data.ecg.wfdb.reader",
}
COMMANDS = {
    "world_models.data.ehr_pipeline": "world_models.data.ehr.pipeline",
    "world_models.data.labelled_ecgs": "world_models.data.ecg.labelled",
    "world_models.data.mimic_iv_ecg": "world_models.data.ecg.mimic_iv_ecg",
    "world_models.ehr_world.causal_train": "world_models.ehr_world.causal_lm.train",
    "world_models.oracles.trial_fit": "world_models.oracles.ecg_drug.fit.trial",
}


@pytest.mark.parametrize("earlier", MODULES)
def test_an_earlier_module_exports_all_that_todays_does(earlier):
    here, there = importlib.import_module(earlier), importlib.import_module(MODULES[earlier])
    assert all(getattr(here, name) is getattr(there, name) for name in there.__all__)


@pytest.mark.parametrize("earlier", COMMANDS)
def test_an_earlier_command_is_todays(earlier):
    assert importlib.import_module(earlier).main is importlib.import_module(COMMANDS[earlier]).main
