# One image for every actor and tool; which one runs is the command. Base image: any glibc Python 3.11 or newer.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/m2m
WORKDIR /src
# Dependencies first: this layer changes only with them.
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && /opt/m2m/bin/pip install -c constraints.txt -r requirements.txt
COPY . .
RUN /opt/m2m/bin/pip install --no-deps .

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/m2m/bin:$PATH PYTHONUNBUFFERED=1
# Volumes begin with the content and the owner of the directory they are mounted on.
RUN useradd --system --uid 10001 --home-dir /var/lib/m2m m2m \
    && install -d -o m2m -g m2m -m 0750 /var/lib/m2m \
    && for actor in ca pva sho dpf ro m2me outdated; do install -d -o m2m -g m2m -m 0700 /var/lib/m2m/$actor; done
COPY --from=build /opt/m2m /opt/m2m
COPY docker /opt/m2m/docker
COPY docker/settings /etc/m2m
USER m2m
WORKDIR /var/lib/m2m
CMD ["m2m-demo"]
