# Training on CUDA devices; pictures and runs are mounted.
#   docker build -f shipping/train.Dockerfile -t visavis-train .
#   docker run --gpus all --ipc host -v /data/faces:/faces:ro -v /data/runs:/runs visavis-train \
#     train arcface --data /faces --out /runs/a
FROM python:3.12-slim
COPY . /source
# hadolint ignore=DL3013
RUN python -m venv /opt/visavis \
    && /opt/visavis/bin/pip install --no-cache-dir "/source[train,detect,heif]" \
    && useradd --uid 10001 --create-home visavis
ENV PATH=/opt/visavis/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/visavis
ENTRYPOINT ["visavis"]
CMD ["doctor"]
