"Every link of a built site: what is on the site is there, nothing is loaded from elsewhere. `python check_links.py SITE`"
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {('link', 'href'), ('use', 'href')}             # besides every src: fetched when the page is opened


class Page(HTMLParser):
    "The links of a page, whether each is loaded with it, and what can be pointed at."
    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.sounds, self.plots = [], set(), 0, 0
        self.feed(re.sub(r'"data:[^"]*"', '"data:"', text))     # sounds are long

    def handle_starttag(self, tag, attrs):
        for name,value in attrs:
            value = value or ''
            if name=='id' or (tag, name)==('a', 'name'): self.ids.add(value)
            if name in ('href', 'src', 'poster', 'data'): self.links.append((value.strip(), name!='href' or (tag, name) in LOADED))
            if name=='srcset': self.links += [(part.split()[0], True) for part in value.split(',') if part.strip()]
            if name=='style': self.links += styled(value)
        self.sounds += tag=='audio'
        self.plots += tag=='img'


def styled(css): return [(link, True) for link in re.findall(r'''url\(\s*["']?([^"')]+)''', css)]


@dataclass
class Report:
    "What a check has seen."
    pages:int=0
    links:int=0
    sounds:int=0
    plots:int=0
    outside:set = field(default_factory=set) # addresses of other hosts
    wrong:list = field(default_factory=list) # sentences

    def __str__(self):
        return (f'{self.pages} pages, {self.links} links ({len(self.outside)} to other hosts, {len(self.wrong)} wrong), '
                f'{self.sounds} sounds, {self.plots} pictures')


def fault(link, loaded, page, site, ids):
    "What is wrong with an internal or external link, or nothing."
    parts = urlsplit(link)
    if parts.scheme=='data': return '' if loaded else 'data as a link'
    if parts.scheme=='mailto' and not loaded: return ''
    if parts.scheme in ('http', 'https') or (parts.netloc and not parts.scheme):
        if loaded: return 'is loaded from another host'
        host = parts.scheme and re.fullmatch(r'[\w-]+(\.[\w-]+)+(:\d+)?', parts.netloc)
        return '' if host and not re.search(r'\s', link) else 'is no address'
    if parts.scheme: return f'has the scheme {parts.scheme}'
    if link.startswith('/'): return 'is an absolute path'
    target = (page.parent/unquote(parts.path)).resolve() if parts.path else page
    if not target.is_relative_to(site): return 'leaves the site'
    if not target.is_file(): return 'is not there'
    if parts.fragment and target in ids and unquote(parts.fragment) not in ids[target]: return 'has no such place'
    return ''


def check(site) -> Report:
    "Read every page and style sheet of a site and judge their links."
    site, report = Path(site).resolve(), Report()
    pages = {p: Page(p.read_text(encoding='utf-8')) for p in sorted(site.rglob('*.html'))}
    ids = {p: page.ids for p,page in pages.items()}
    links = {p: page.links for p,page in pages.items()} | {p: styled(p.read_text(encoding='utf-8')) for p in sorted(site.rglob('*.css'))}
    for p,found in links.items():
        for link,loaded in found:
            report.links += 1
            if why := fault(link, loaded, p, site, ids): report.wrong.append(f'{p.relative_to(site)}: {link[:100]!r} {why}')
            elif link.startswith('http'): report.outside.add(link)
    report.pages, report.sounds, report.plots = len(pages), *(sum(getattr(page, k) for page in pages.values()) for k in ('sounds', 'plots'))
    return report


def main(site):
    report = check(site)
    print(*sorted(report.outside), *report.wrong, report, sep='\n')
    return bool(report.wrong)


if __name__ == '__main__': sys.exit(main(sys.argv[1]))
