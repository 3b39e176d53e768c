"""GPUs and driver as the system tells of them, which is not what torch can use."""

from das3r_ns.machine import hardware


def test_the_kinds_of_gpu_presence(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "PROC", tmp_path / "proc")
    monkeypatch.setattr(hardware, "DEV", tmp_path / "dev")
    monkeypatch.setattr(hardware, "PCI", tmp_path / "pci")
    card = tmp_path / "pci" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n", encoding="ascii")
    (card / "class").write_text("0x030000\n", encoding="ascii")
    assert hardware.gpus() == []
    assert hardware.gpus_without_driver() == 1  # worth a line, not a refusal: a container sees its host's bus
    for i in range(2):
        folder = tmp_path / "proc" / "gpus" / f"0000:0{i}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 41\n", encoding="ascii")
    (tmp_path / "dev").mkdir()
    assert hardware.gpus() == []  # the host has them, this container has not
    (tmp_path / "dev" / "nvidia1").touch()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert hardware.gpus() == ["NVIDIA H200"]
    assert hardware.gpus_without_driver() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.gpus() == []
    version = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version: 15.3.0\n"
    )
    (tmp_path / "proc" / "version").write_text(version, encoding="ascii")
    assert hardware.driver_version() == "580.159.04"
