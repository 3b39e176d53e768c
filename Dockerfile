# das3r_ns with everything that training on an NVIDIA GPU needs; the driver comes from the host.
#
#   docker build -t das3r-ns .
#   docker run --rm -it --gpus all -p 7007:7007 -v "$PWD:/data" das3r-ns ns-train das3r --data my_video.mp4
#
# Without --gpus all it trains on the CPU. gsplat's kernels are built at the first training and kept in /data/.cache.
FROM python:3.11-slim-bookworm

# g++: builds gsplat's kernels. libgl1, libgomp1, libx11-6: open3d, which nerfstudio's exporter imports.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg g++ libgl1 libgomp1 libx11-6 \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE /src/
COPY das3r_ns /src/das3r_ns
# torch from PyPI brings CUDA's runtime, the extra `cuda` its compiler. Other extras (exr, splats, prompt, sam2, heif,
# xfeat: docs/install.md) go into the same brackets.
RUN pip install --no-cache-dir "/src[cuda,salience]" \
    && rm -rf /src

RUN useradd --create-home --uid 1000 das3r \
    && mkdir /data \
    && chown das3r /data
USER 1000
WORKDIR /data
VOLUME /data

ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DAS3R_CACHE=/data/.cache/das3r_ns \
    TORCH_HOME=/data/.cache/torch \
    HF_HOME=/data/.cache/huggingface \
    NUMBA_CACHE_DIR=/data/.cache/numba

EXPOSE 7007
CMD ["das3r", "doctor"]
