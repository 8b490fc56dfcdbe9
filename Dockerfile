# degstalk-ns in a container. For CPUs, about 4.5 GB by the sizes of the packages (open3d and pymeshlab, which nerfstudio
# demands, are 1.2 of them):
#     docker build -t degstalk:cpu .
# For NVIDIA GPUs:
#     docker build -t degstalk:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
FROM python:3.11-slim

# MediaPipe needs EGL and GLES, nerfstudio's renderer the ffmpeg program.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ffmpeg libegl1 libgles2 libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/degstalk
COPY pyproject.toml README.md LICENSE ./
COPY degstalk_ns degstalk_ns
COPY dataparsers dataparsers
COPY configs configs
COPY scripts scripts
# torch first and from its own index: the default one brings CUDA's libraries, 4 GB that a CPU has no use for.
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision \
 && pip install --no-cache-dir '.[fleet]'

# Models are fetched into the cache of the user on first use; mount a folder here to keep them, or to work offline.
ENV DEGSTALK_MODELS=/models OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg
ENTRYPOINT []
CMD ["degstalk", "--help"]
