from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from narrow import images_of

import ctxrecon
from ctxrecon.errors import InputError
from ctxrecon.loading.components import shipped_prior
from ctxrecon.pipelines import ContextMRIPipeline, build_pipeline, load_prior
from ctxrecon.priors import build_text_encoder
from ctxrecon.priors.tokenizer import build_tokenizer

TEXT_WIDTH = 32
# Key for key the configuration of the published U-Net; only the sizes are smaller.
PUBLISHED_CONFIG = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.16.0.dev0",
    "act_fn": "silu",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 8,
    "attention_head_dim": 8,
    "block_out_channels": [32, 32, 64, 64],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": TEXT_WIDTH,
    "cross_attention_norm": "group_norm",
    "down_block_types": [
        "ResnetDownsampleBlock2D",
        "SimpleCrossAttnDownBlock2D",
        "SimpleCrossAttnDownBlock2D",
        "SimpleCrossAttnDownBlock2D",
    ],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": TEXT_WIDTH,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 2,
    "layers_per_block": 1,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 2,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 32,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "up_block_types": [
        "SimpleCrossAttnUpBlock2D",
        "SimpleCrossAttnUpBlock2D",
        "SimpleCrossAttnUpBlock2D",
        "ResnetUpsampleBlock2D",
    ],
    "upcast_attention": False,
    "use_linear_projection": False,
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A small checkpoint in the layout of the published repository."""
    root = tmp_path_factory.mktemp("published")
    for seed, name in enumerate(("fastmri", "skm-tea")):
        torch.manual_seed(seed)
        UNet2DConditionModel.from_config(PUBLISHED_CONFIG).save_pretrained(root / name)
    DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="epsilon", clip_sample=True
    ).save_pretrained(root / "scheduler")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(root / "tokenizer")
    build_text_encoder(len(tokenizer), hidden_size=TEXT_WIDTH, num_layers=1).save_pretrained(
        root / "text_encoder"
    )
    index = {
        "_class_name": "MRIPipeline",
        "_diffusers_version": "0.16.0.dev0",
        "_ignore_files": ["pytorch_model.bin"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (root / "model_index.json").write_text(json.dumps(index))
    return root


@pytest.fixture
def copy(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "checkpoint"))


@pytest.fixture
def kspace(generator) -> torch.Tensor:
    return torch.randn(1, 1, 20, 24, dtype=torch.complex64, generator=generator)


@pytest.mark.parametrize("subfolder", ["fastmri", "skm-tea"])
def test_published_layout_loads_and_reconstructs(published, subfolder, kspace):
    pipe = load_prior(published, subfolder=subfolder)
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.unet, UNet2DConditionModel)
    saved = json.loads((published / subfolder / "config.json").read_text())
    differing = {
        key
        for key, value in PUBLISHED_CONFIG.items()
        if not key.startswith("_") and saved[key] != value
    }
    assert not differing
    output = pipe(kspace, prompt="Knee, Slice 20, PDFS", guidance_scale=2.0, num_inference_steps=2)
    assert images_of(output).shape == (1, 20, 24)
    assert bool(torch.isfinite(images_of(output).abs()).all())
    assert pipe.scheduler.config.prediction_type == "epsilon"
    assert pipe.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert pipe.set_timesteps(100) == list(range(990, -1, -10))


def test_several_unets_must_be_chosen_from(published, copy):
    with pytest.raises(InputError, match=r"fastmri.*skm-tea"):
        load_prior(published)
    shutil.rmtree(copy / "skm-tea")
    load_prior(copy)
    with pytest.raises(InputError, match="no subfolder 'skm-tea'"):
        load_prior(copy, subfolder="skm-tea")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pipeline_folder_round_trip(tmp_path, dtype, kspace):
    pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16)
    pipe.unet.to(dtype)
    pipe.text_encoder.to(dtype)
    pipe.save_pretrained(tmp_path)
    loaded = load_prior(tmp_path)
    assert isinstance(loaded, ContextMRIPipeline)
    assert loaded.unet.dtype == loaded.text_encoder.dtype == torch.float32
    assert not loaded.unet.training
    for key, value in pipe.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[key], value.float())
    assert loaded.tokenizer("Knee, PDFS").input_ids == pipe.tokenizer("Knee, PDFS").input_ids
    assert dict(pipe.scheduler.config).items() >= dict(loaded.scheduler.config).items()
    by_class = ContextMRIPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    images = []
    for each in (loaded, by_class):
        each.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        output = each(kspace, prompt="Knee", num_inference_steps=2, generator=generator)
        images.append(images_of(output))
    torch.testing.assert_close(*images)


def test_variant_weights_load(tmp_path):
    pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16)
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert not (tmp_path / "unet" / WEIGHTS).exists()
    load_prior(tmp_path)


def test_parts_that_are_absent_may_be_given(published, copy):
    for part, example in (
        ("text_encoder", r"text_encoder="),
        ("tokenizer", r"tokenizer="),
        ("scheduler", "by scheduler"),
    ):
        shutil.rmtree(copy / part)
        with pytest.raises(InputError, match=rf"no {part}/ in .*{example}"):
            load_prior(copy, subfolder="fastmri")
        load_prior(copy, subfolder="fastmri", **{part: published / part})
        load_prior(copy, subfolder="fastmri", **{part: published})
        shutil.copytree(published / part, copy / part)


def test_shipped_prior_is_inside_the_package():
    assert shipped_prior().parent.name == "checkpoints"


def test_paths_that_are_no_folder(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no checkpoint folder"):
        load_prior(tmp_path / "absent")
    with pytest.raises(InputError, match="no checkpoint folder"):
        load_prior("./absent/prior/here")
    with pytest.raises(InputError, match=r"one of prior, network, .*l1_wavelet.* dds"):
        ctxrecon.load("wavelet")
    file = tmp_path / "weights.safetensors"
    file.touch()
    with pytest.raises(InputError, match="got the file"):
        load_prior(file)
    with pytest.raises(InputError, match="no U-Net"):
        load_prior(tmp_path)

    import huggingface_hub

    def offline(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"ContextMRI .* hub"):
        load_prior("DHCAI/ContextMRI", subfolder="fastmri")


@pytest.mark.parametrize("load", [load_prior, ctxrecon.load])
def test_published_networks_that_are_not_asked_for_are_not_downloaded(monkeypatch, load):
    import huggingface_hub

    asked = {}

    def download(name, **options):
        asked.update(options)
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match="the hub"):
        load("DHCAI/ContextMRI", subfolder="fastmri")
    assert asked["ignore_patterns"] == ["skm-tea/*"]


def _remove_config(root: Path) -> None:
    (root / "fastmri" / "config.json").unlink()


def _break_config(root: Path) -> None:
    (root / "fastmri" / "config.json").write_text("{ in_channels: 2")


def _list_config(root: Path) -> None:
    (root / "fastmri" / "config.json").write_text("[]")


def _change_config(root: Path, **values: object) -> None:
    path = root / "fastmri" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _four_channels(root: Path) -> None:
    _change_config(root, in_channels=4)


def _wider_network(root: Path) -> None:
    _change_config(root, block_out_channels=[32, 32, 64, 96])


def _deeper_network(root: Path) -> None:
    _change_config(root, layers_per_block=2)


def _a_million_layers(root: Path) -> None:
    _change_config(root, layers_per_block=10**6)


def _a_million_channels(root: Path) -> None:
    _change_config(root, block_out_channels=[2**20] * 4)


def _no_groups(root: Path) -> None:
    _change_config(root, norm_num_groups=0)


def _deep_config(root: Path) -> None:
    (root / "fastmri" / "config.json").write_text("[" * 100_000)


def _long_schedule(root: Path) -> None:
    _change_scheduler(root, num_train_timesteps=10**12)


def _no_schedule(root: Path) -> None:
    _change_scheduler(root, num_train_timesteps=-1)


def _unknown_schedule(root: Path) -> None:
    _change_scheduler(root, beta_schedule="none")


def _change_scheduler(root: Path, **changes: object) -> None:
    path = root / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _remove_weights(root: Path) -> None:
    (root / "fastmri" / WEIGHTS).unlink()


def _pickled_weights(root: Path) -> None:
    (root / "fastmri" / WEIGHTS).rename(root / "fastmri" / "diffusion_pytorch_model.bin")


def _truncate_weights(root: Path) -> None:
    path = root / "fastmri" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


def _empty_weights(root: Path) -> None:
    (root / "fastmri" / WEIGHTS).write_bytes(b"")


def _remove_scheduler_config(root: Path) -> None:
    (root / "scheduler" / "scheduler_config.json").unlink()


def _remove_vocabulary(root: Path) -> None:
    for file in (root / "tokenizer").iterdir():
        file.unlink()


def _other_text_encoder(root: Path) -> None:
    shutil.rmtree(root / "text_encoder")
    other = build_text_encoder(len(build_tokenizer()), hidden_size=16, num_layers=1)
    other.save_pretrained(root / "text_encoder")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_remove_config, "no config.json"),
        (_break_config, "not valid JSON"),
        (_list_config, "JSON object"),
        (_four_channels, "2 channels .* 4 and 2"),
        (_wider_network, "do not fit"),
        (_deeper_network, r"lack \d+ tensors|do not fit"),
        (_a_million_layers, "1000000"),
        (_a_million_channels, "parameters"),
        (_no_groups, "do not fit"),
        (_deep_config, "nested too deeply"),
        (_long_schedule, "num_train_timesteps"),
        (_no_schedule, "valid scheduler"),
        (_unknown_schedule, "valid scheduler"),
        (_remove_weights, r"no weights \(\*.safetensors\)"),
        (_pickled_weights, r"pickled .*diffusion_pytorch_model\.bin"),
        (_truncate_weights, "truncated"),
        (_empty_weights, "truncated"),
        (_remove_scheduler_config, "no scheduler_config.json"),
        (_remove_vocabulary, "tokenizer is incomplete"),
        (_other_text_encoder, "32, .* 16"),
    ],
)
def test_damaged_checkpoints_have_their_own_sentence(copy, damage, sentence):
    damage(copy)
    with pytest.raises(InputError, match=sentence):
        load_prior(copy, subfolder="fastmri")
