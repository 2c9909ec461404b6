"""/docs: Swagger UI over the OpenAPI document, from files of our own: no browser is sent elsewhere."""

from importlib.metadata import version
from pathlib import Path

from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.router import Router
from litestar.static_files import create_static_files_router

PATH = "/docs"
FILES = f"{PATH}/files"


def openapi_config() -> OpenAPIConfig:
    """The document at /docs/openapi.json and the page at /docs."""
    page = SwaggerRenderPlugin(
        js_url=f"{FILES}/swagger-ui-bundle.js",
        css_url=f"{FILES}/swagger-ui.css",
        standalone_preset_js_url=f"{FILES}/swagger-ui-standalone-preset.js",
        favicon='<link rel="icon" href="data:,">',
    )
    return OpenAPIConfig(
        title="semcached",
        version=version("semcached-server"),
        path=PATH,
        render_plugins=[page],
        use_handler_docstrings=True,
        security=[{"key": []}],
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
    )


def files() -> Router:
    """The page's scripts and styles."""
    folder = Path(__file__).with_name("swagger")
    return create_static_files_router(path=FILES, directories=[folder], include_in_schema=False)
