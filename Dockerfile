# The service without a Redis: set SEMCACHED_REDIS_URL, SEMCACHED_SECRET and SEMCACHED_ADMIN_KEY. compose.yaml does.
FROM python:3.11.16-slim-trixie AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/semcached
COPY requirements-image-build.lock requirements-image.lock ./
RUN pip install --require-hashes -r requirements-image-build.lock \
    && pip --python /opt/semcached install --require-hashes --only-binary :all: --no-compile \
        -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY index_schemas index_schemas
COPY migrations migrations
COPY service service
COPY client client
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . ./client \
    && pip --python /opt/semcached install --no-deps --no-index --no-compile dist/*.whl
# Nobody can write bytecode later. Unchecked: whatever a copy does to a file's time doesn't matter.
RUN /opt/semcached/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/semcached/lib

FROM python:3.11.16-slim-trixie
RUN python -m pip --no-cache-dir uninstall --yes --root-user-action ignore setuptools wheel pip \
    && install --directory --owner 65532 --group 65532 --mode 0700 /data
COPY --from=build /opt/semcached /opt/semcached
ENV PATH=/opt/semcached/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SEMCACHED_HOST=0.0.0.0 \
    SEMCACHED_DATA_DIR=/data
VOLUME /data
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# Alive, not ready: a service whose Redis is away answers, and must not be restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SEMCACHED_PORT') or 8080), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["semcached"]
CMD ["serve"]
