"How Sphinx builds the site from what `build.py` has prepared. No page asks any other host for anything."
from docutils.nodes import SkipNode
from latex2mathml.converter import convert

project, author, language = 'audiolm-edu', 'The audiolm-edu authors', 'en'
copyright = f'{author}, Apache 2.0'
extensions = ['myst_nb']
exclude_patterns = ['originals']                         # notebooks as they are, for downloading

nb_execution_mode = 'off'                                # what is shown is what is stored
nb_merge_streams = True
nb_ipywidgets_js = {}                                    # else require.js comes from a CDN
myst_enable_extensions = ['attrs_block', 'attrs_inline', 'colon_fence', 'dollarmath', 'html_image']
myst_heading_anchors = 3
html_math_renderer = 'mathml'                            # browsers draw it themselves; MathJax would come from a CDN

html_theme = 'furo'
html_title = 'audiolm-edu'
html_static_path, html_css_files, html_favicon = ['static'], ['site.css'], 'static/icon.svg'
html_copy_source = html_show_sphinx = html_domain_indices = False
html_theme_options = dict(
    light_css_variables={'color-brand-primary': '#0072b2', 'color-brand-content': '#0072b2', 'color-code-background': '#f7f8fa'},
    dark_css_variables={'color-brand-primary': '#62b6e7', 'color-brand-content': '#62b6e7'})
pygments_style, pygments_dark_style, highlight_language = 'friendly', 'github-dark', 'none'   # blocks of no language are for a shell
add_module_names = False
toc_object_entries_show_parents = 'hide'


def mathml(display):
    "A visitor that writes a formula as MathML."
    def visit(writer, node): writer.body.append(convert(node.astext(), display=display)); raise SkipNode
    return visit, None


def setup(app): app.add_html_math_renderer('mathml', mathml('inline'), mathml('block'))
