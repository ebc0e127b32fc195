"""Images as files: which are imported, where they lie, with which words."""

import pytest

from pytest_pd.provision.slurm_image import (
    import_argv,
    import_script,
    is_registry,
    squash_path,
)
from pytest_pd.spec.site_slurm import SlurmSite


@pytest.mark.parametrize(
    ("image", "pulled"),
    [
        ("vllm/vllm-openai:v0.32.0", True),
        ("nvcr.io#nvidia/x:1", True),
        ("/lustre/x.sqsh", False),
        ("./x.sqsh", False),
    ],
)
def test_a_path_is_a_file_already(image, pulled):
    assert is_registry(image) is pulled


def test_two_tags_are_two_files():
    paths = {squash_path("/img/", f"a/b:{tag}") for tag in ("1.0", "1.1")}

    assert paths == {"/img/a_b_1.0.sqsh", "/img/a_b_1.1.sqsh"}


def test_the_words_of_an_import():
    script = import_script("nvcr.io#a/b:1", "/img/a b.sqsh")
    words = import_argv(SlurmSite(), "12", "n03", script)

    assert words[:-1] == (
        *("srun", "--jobid=12", "--overlap", "--nodes=1", "--ntasks=1"),
        *("--nodelist=n03", "--job-name=pd-image", "--export=ALL", "--gres=none"),
        *("sh", "-c"),
    )
    first = words[-1].splitlines()[0]
    assert first == "path='/img/a b.sqsh' source='docker://nvcr.io#a/b:1'"
    assert 'enroot import --output "$part" "$source"' in words[-1]


def test_sites_that_ask_for_no_gpus_are_not_told_of_any():
    words = import_argv(SlurmSite(gpus_by="none"), "12", "n03", "")

    assert "--gres=none" not in words
