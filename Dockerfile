# degstalk-ns in a container. For CPUs, 2.7 GB:
#     docker build -t degstalk:cpu .
# For NVIDIA GPUs, 7.5 GB:
#     docker build -t degstalk:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .

# A compiler is needed once, for pyliblzfse, which viser demands and which comes as source alone.
FROM python:3.11 AS build
RUN pip install --no-cache-dir uv
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY degstalk_ns degstalk_ns
COPY dataparsers dataparsers
COPY configs configs
COPY scripts scripts
# What nerfstudio and mediapipe demand and no step of a fleet loads, 1.7 GB: meshes, notebooks, trackers of experiments,
# datasets of cars, a second OpenCV. `ns-export` and `--vis wandb` are not to be had in the container.
RUN printf "%s; sys_platform == 'never'\n" \
    open3d pymeshlab xatlas embreex jupyterlab ipywidgets ipython plotly wandb comet-ml nuscenes-devkit timm h5py gdown \
    pyngrok opencv-contrib-python > left-out.txt
# torch first and from its own index: the default one brings CUDA's libraries, 4 GB that a CPU has no use for.
# scikit-learn came with nuscenes-devkit; imageio-ffmpeg has the ffmpeg program for `ns-render`, in a third of the space.
RUN uv venv /opt/degstalk \
 && uv pip install --no-cache --python /opt/degstalk/bin/python --index-url "$TORCH_INDEX" torch torchvision \
 && uv pip install --no-cache --python /opt/degstalk/bin/python --override left-out.txt \
    '.[fleet]' scikit-learn imageio-ffmpeg \
 && ln -s "$(/opt/degstalk/bin/python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')" \
    /opt/degstalk/bin/ffmpeg

FROM python:3.11-slim
# MediaPipe draws on EGL and GLES.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libegl1 libgles2 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/degstalk /opt/degstalk
# Models are fetched into the cache of the user on first use; mount a folder here to keep them, or to work offline.
ENV PATH=/opt/degstalk/bin:$PATH DEGSTALK_MODELS=/models OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg
CMD ["degstalk", "--help"]
