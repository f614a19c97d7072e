"A stand-in for the Hugging Face Hub on this machine: the part of its protocol that push and pull need."
import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class Hub(BaseHTTPRequestHandler):
    "Repositories as {name: {revision: {file: bytes}}}, the newest revision last."
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_): pass

    def answer(self, what=None, status=200, **headers):
        body = what if isinstance(what, bytes) else json.dumps(what or {}).encode()
        self.send_response(status)
        for k,v in {'Content-Length': str(len(body)), 'Content-Type': 'application/json', **headers}.items(): self.send_header(k.replace('_', '-'), v)
        self.end_headers()
        if self.command!='HEAD': self.wfile.write(body)

    def sent(self): return self.rfile.read(int(self.headers.get('Content-Length', 0)))

    def do_GET(self):
        path = unquote(urlparse(self.path).path).strip('/').split('/')
        if path[:2]==['api','models']: return self.about('/'.join(path[2:4]), *path[4:6])
        if 'resolve' in path[:3]: return self.file('/'.join(path[:2]), path[3], '/'.join(path[4:]))
        self.answer(dict(error='no such page'), 404)

    do_HEAD = do_GET

    def revision(self, repo, name):
        made = self.server.repos.get(repo, {})
        return list(made)[-1] if made and name=='main' else name if name in made else None

    def about(self, repo, what='revision', name='main'):
        sha = self.revision(repo, name)
        if sha is None: return self.answer(dict(error='Repository not found'), 404, X_Error_Code='RepoNotFound' if repo not in self.server.repos else 'RevisionNotFound')
        own = self.server.repos[repo][sha]
        if what=='tree': return self.answer([dict(type='file', path=k, size=len(v), oid=hashlib.sha1(v).hexdigest()) for k,v in own.items()])
        self.answer(dict(id=repo, sha=sha, private=False, siblings=[dict(rfilename=k) for k in own]))

    def file(self, repo, name, file):
        sha = self.revision(repo, name); body = self.server.repos.get(repo, {}).get(sha, {}).get(file)
        if body is None: return self.answer(dict(error='Entry not found'), 404, X_Error_Code='EntryNotFound')
        self.answer(body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit=sha, Content_Type='application/octet-stream')

    def do_PUT(self):
        body = self.sent(); self.server.large[self.path.rsplit('/', 1)[1]] = body; self.answer({})

    def do_POST(self):
        body, path = self.sent(), unquote(urlparse(self.path).path).strip('/').split('/')
        self.server.tokens.append(self.headers.get('Authorization'))
        if path[:3]==['api','repos','create']: return self.create(json.loads(body))
        if path[-1]=='batch': return self.batch(json.loads(body))
        if path[:2]==['api','models'] and path[4]=='preupload':
            return self.answer(dict(files=[dict(path=f['path'], uploadMode='lfs' if f['path'].endswith('.safetensors') else 'regular', shouldIgnore=False, oid=None)
                                           for f in json.loads(body)['files']]))
        if path[:2]==['api','models'] and path[4]=='commit': return self.commit('/'.join(path[2:4]), [json.loads(l) for l in body.splitlines()])
        self.answer(dict(errors=[], warnings=[]))

    def create(self, asked):
        repo = '/'.join(x for x in (asked.get('organization'), asked['name']) if x)
        if repo.startswith('locked/'): return self.answer(dict(error='You have no right to write here'), 403)
        self.server.repos.setdefault(repo, {}); self.answer(dict(url=f'{self.server.address}/{repo}', name=repo, id=repo))

    def batch(self, asked):
        link = lambda o: dict(upload=dict(href=f"{self.server.address}/large/{o['oid']}"))
        self.answer(dict(transfer='basic', objects=[dict(oid=o['oid'], size=o['size'], actions=link(o)) for o in asked['objects']]))

    def commit(self, repo, lines):
        files = dict(list(self.server.repos[repo].values())[-1]) if self.server.repos[repo] else {}
        for l in lines:
            if l['key']=='file': files[l['value']['path']] = base64.b64decode(l['value']['content'])
            if l['key']=='lfsFile': files[l['value']['path']] = self.server.large[l['value']['oid']]
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.server.repos[repo][sha] = files
        self.answer(dict(success=True, commitUrl=f'{self.server.address}/{repo}/commit/{sha}', commitOid=sha, hookOutput=''))


def serve():
    "A hub on a free port: `.address`, `.repos`, `.tokens`; `.shutdown()` ends it."
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.repos, server.large, server.tokens = {}, {}, []
    server.address = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
