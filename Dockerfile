# A tag moves. Name the image that you have looked at by its digest, as docs/howto/running.md says.
ARG BASE=python:3.12-slim
FROM ${BASE}

RUN useradd --system --uid 10001 --create-home botos && install -d -o botos -m 0700 /data
WORKDIR /opt/botos
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY manage.py ./
COPY botos_project botos_project
COPY identity identity
COPY sessions_app sessions_app
COPY adapters adapters
COPY static static
COPY templates templates

ENV PYTHONUNBUFFERED=1 BOTOS_ENV_FILE="" BOTOS_DATA_DIR=/data
USER botos
# Not a shell: the process itself must hear the stop signal.
CMD ["python", "manage.py", "runbots"]
