"""Every published spelling is read, the two families are never mixed up, and the 26 released runs are all there."""

import json
from pathlib import Path

import pytest

from open_r1.common.errors import UserError
from open_r1.vocabulary.labels import (
    Modality,
    SplitFile,
    Task,
    family_of,
    parse_label,
    parse_modality,
    parse_split_file,
    parse_task,
    refuse_other_family,
)
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.releases import HUB_REPOSITORY, QWEN2_VL_2B, QWEN25_VL_3B, matrix, released

# label: release, hub subfolder of the think runs, data folder, label in the figures
MODALITIES = {
    Modality.CT: ("CT(Computed Tomography)", "VQA_CT", "CT_384", "CT"),
    Modality.MRI: ("MR (Mag-netic Resonance Imaging)", "VQA_MRI", "MRI_384", "MRI"),
    Modality.XRAY: ("X-Ray", "VQA_X-Ray", "X-Ray_384", "X-Ray"),
    Modality.ULTRASOUND: ("ultrasound", "VQA_US", "US_384", "US"),
    Modality.DERMOSCOPY: ("Dermoscopy", "VQA_Dermo", "Dermoscopy_384", "Der"),
    Modality.FUNDUS: ("Fundus Photography", "VQA_Fundus", "Fundus_384", "FP"),
    Modality.OCT: ("OCT (Optical Coherence Tomography", "VQA_OCT", "OCT_384", "OCT"),
    Modality.MICROSCOPY: ("Microscopy Images", "VQA_Micro", "Microscopy_384", "Micro"),
}
TASKS = {
    Task.ANATOMY: ("Anatomy Identification", "VQA_Anatomy_Identification", "Anatomy_Identification_384", "AI"),
    Task.DIAGNOSIS: ("Disease Diagnosis", "VQA_Disease_Diagnosis", "Disease_Diagnosis_384", "DD"),
    Task.GRADING: ("Lesion Grading", "VQA_Lesion_Grading", "Lesion_Grading_384", "LG"),
    Task.MODALITY: ("Modality Recognition", "VQA_Modality_Recognition", "Modality_Recognition_384", "MR"),
    Task.ATTRIBUTES: ("Other Biological Attributes", "VQA_Other_Bio", "Other_Biological_Attributes_384", "OBA"),
}
LABELS = {**MODALITIES, **TASKS}
EVERY_LABEL = [pytest.param(label, *names, id=label.value) for label, names in LABELS.items()]

# Rows of the published split files, from the counts of the data set: train, test.
COUNTS = {
    Modality.CT: (12_567, 3_241),
    Modality.MRI: (25_507, 6_370),
    Modality.XRAY: (6_301, 1_615),
    Modality.ULTRASOUND: (8_917, 2_074),
    Modality.DERMOSCOPY: (5_373, 1_306),
    Modality.FUNDUS: (4_300, 1_098),
    Modality.OCT: (3_798, 848),
    Modality.MICROSCOPY: (4_570, 1_110),
    Task.ANATOMY: (13_119, 3_329),
    Task.DIAGNOSIS: (44_329, 11_058),
    Task.GRADING: (1_662, 436),
    Task.MODALITY: (9_173, 2_392),
    Task.ATTRIBUTES: (2_794, 704),
    None: (1, 0),
}


@pytest.mark.parametrize(("label", "release", "hub", "folder", "short"), EVERY_LABEL)
def test_every_published_spelling_is_read(label, release, hub, folder, short):
    assert (label.hub, label.folder, label.short) == (hub, folder, short)
    spellings = [
        label.value,
        release,
        hub,
        folder,
        f"data/VQA/{folder}/",
        f"{release}_train.json",
        f"{release}_test.json",
    ]
    spellings += [label.value.upper(), label.value.lower(), f" {release} "]
    assert [parse_label(spelling) for spelling in spellings] == [label] * len(spellings)
    parse, parse_other = (parse_modality, parse_task) if isinstance(label, Modality) else (parse_task, parse_modality)
    assert parse(release) is label
    assert parse(short, family_of(label)) is label
    with pytest.raises(UserError, match="expected here"):
        parse_other(release)


@pytest.mark.parametrize("text", ["", " ", "unknown", "unknown_train.json", "None"])
def test_a_row_without_a_label_is_no_error(text):
    assert parse_label(text) is None
    assert parse_modality(text) is None
    assert parse_task(text) is None


@pytest.mark.parametrize("text", ["MR", "mr", "MR_384", "MR_test.json", "data/VQA/MR_384"])
def test_mr_alone_needs_its_family(text):
    with pytest.raises(UserError, match="ambiguous"):
        parse_label(text)
    with pytest.raises(UserError, match="ambiguous"):
        parse_modality(text)
    assert parse_label(text, "modality") is Modality.MRI
    assert parse_label(text, "task") is Task.MODALITY
    assert parse_modality(text, "modality") is Modality.MRI
    assert parse_task(text, "task") is Task.MODALITY


def test_mr_on_the_hub_is_the_task():
    assert parse_label("VQA_MR") is Task.MODALITY
    assert parse_label("Qwen_2.5_3B_nothink/VQA_MRI") is Modality.MRI
    assert released("Qwen_2.5_3B_nothink/VQA_MR").label is Task.MODALITY
    assert released("Qwen_2.5_3B_nothink/VQA_MRI").label is Modality.MRI
    assert released("VQA_MRI").label is Modality.MRI
    with pytest.raises(UserError, match="modality is expected"):
        parse_modality("VQA_MR")


@pytest.mark.parametrize("text", ["PET", "CTX", "VQA_", "MRT", "Images/CT/scan.png", "X"])
def test_an_unknown_name_is_refused_with_the_known_ones(text):
    with pytest.raises(UserError, match="Disease Diagnosis"):
        parse_label(text)


def test_the_family_asked_for_is_enforced():
    with pytest.raises(UserError, match="is a task, but a modality"):
        parse_label("Lesion Grading", "modality")


def test_every_published_split_file_is_read_and_counts_as_published(real_dir: Path):
    root = real_dir / "omnimedvqa_splits"
    files = sorted(root.rglob("*.json"))
    assert len(files) == 13
    for path in files:
        split_file = parse_split_file(path)
        assert split_file == parse_split_file(path.relative_to(root))
        assert split_file.family == ("task" if path.parent.parent.name == "question_type" else "modality")
        assert split_file.split == path.parent.name
        assert len(json.loads(path.read_text())) == COUNTS[split_file.label][split_file.split == "test"], path.name


@pytest.mark.parametrize(("label", "release"), [(label, names[0]) for label, names in LABELS.items()])
def test_all_26_split_file_names_are_read(label, release):
    family = family_of(label)
    for split in ("train", "test"):
        split_file = parse_split_file(
            f"{'modality' if family == 'modality' else 'question_type'}/{split}/{release}_{split}.json"
        )
        assert split_file == SplitFile(label, family, split)
        assert parse_split_file(f"{release}_{split}.json") == split_file


def test_the_published_counts_add_up():
    assert sum(COUNTS[label][0] + COUNTS[label][1] for label in [*Modality, None]) == 88_996
    assert sum(COUNTS[label][0] + COUNTS[label][1] for label in Task) == 88_996
    # all train, all test of the modality files
    assert [sum(COUNTS[label][side] for label in [*Modality, None]) for side in (0, 1)] == [71_334, 17_662]


@pytest.mark.parametrize("name", ["CT.json", "CT_train.jsonl", "CT_val.json", "train.json", "CT_384"])
def test_a_file_that_is_no_split_file_is_refused(name):
    with pytest.raises(UserError, match=r"_train\.json or _test\.json"):
        parse_split_file(name)


def test_an_unlabelled_split_file_takes_its_family_from_its_folder():
    assert parse_split_file("modality/train/unknown_train.json") == SplitFile(None, "modality", "train")
    with pytest.raises(UserError, match="folder"):
        parse_split_file("unknown_train.json")


def test_matrix_holds_the_26_released_checkpoints():
    think = [names[1] for names in LABELS.values()]
    tails = ["CT", "MRI", "X-Ray", "US", "Dermo", "Fundus", "OCT", "Micro", "AI", "DD", "LG", "MR", "OBA"]
    nothink = [f"Qwen_2.5_3B_nothink/VQA_{tail}" for tail in tails]
    runs = matrix()
    assert [run.subfolder for run in runs] == think + nothink
    assert [run.label for run in runs] == [*LABELS, *LABELS]
    assert [run.mode for run in runs] == [Mode.THINK] * 13 + [Mode.NOTHINK] * 13
    assert all(released(run.subfolder) == run for run in runs)
    assert all(run.checkpoint == f"{HUB_REPOSITORY}:{run.subfolder}" for run in runs)
    confirmed = {run.subfolder.split("_")[-1] for run in runs if run.base is QWEN25_VL_3B and run.is_confirmed}
    assert confirmed == {"AI", "CT", "Fundus", "LG", "MR", "MRI", "X-Ray"}
    assert all(run.is_confirmed for run in runs if run.base is QWEN2_VL_2B)


def test_run_names_are_the_published_ones_and_unique():
    names = [run.name for run in matrix()]
    assert len(set(names)) == 26
    assert {"Qwen2-VL-2B-GRPO-CT", "Qwen2.5-VL-3B-GRPO-CT"} <= set(names)


def test_an_unknown_released_checkpoint_is_refused():
    with pytest.raises(UserError, match="VQA_Dermo"):
        released("VQA_PET")


def test_scoring_across_the_two_families_is_refused():
    refuse_other_family(Modality.CT, Modality.MRI)
    refuse_other_family(Task.GRADING, Task.MODALITY)
    with pytest.raises(UserError, match="80 %"):
        refuse_other_family(Modality.CT, Task.MODALITY)
    with pytest.raises(UserError, match="80 %"):
        refuse_other_family(Task.MODALITY, Modality.MRI)
