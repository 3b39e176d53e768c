"""What the machine has: GPU, driver, CUDA compiler, gsplat's kernels. What it lacks comes with the command that helps.

hardware  the GPUs of this machine and their driver, asked of the system and not of torch
toolkit   the CUDA compiler: from Python packages, from the system, at the version that torch names
kernels   gsplat's CUDA kernels: found, built once with a progress bar, kept
checks    one finding per requirement: what was found, what is needed, the command that helps
at_start  those findings at the start of `ns-train`, before nerfstudio imports its methods
"""
