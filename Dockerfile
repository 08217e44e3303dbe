# A recognizer as a service: no torch, no root, nothing written but below /data.
#   docker build -t visavis .
#   docker run -p 8000:8000 -v visavis:/data -e VISAVIS_TOKEN visavis
FROM python:3.13-slim AS build
COPY . /source
# hadolint ignore=DL3013
RUN python -m venv /opt/visavis \
    && /opt/visavis/bin/pip install --no-cache-dir "/source[serve,detect,heif,postgres,pretrained]"

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /data visavis
COPY --from=build /opt/visavis /opt/visavis
ENV PATH=/opt/visavis/bin:$PATH PYTHONUNBUFFERED=1 VISAVIS_CACHE=/data/cache
USER 10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# A model of one's own lies in /data/model: add `--model /data/model`.
ENTRYPOINT ["visavis"]
CMD ["serve", "/data/people.db", "--model", "sface", "--host", "0.0.0.0", "--port", "8000"]
