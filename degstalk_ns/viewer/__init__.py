"""Adapter to nerfstudio's viewer: a head that talks in the browser, in step with its sound. No mathematics of its own.

`attach.py` hooks into the viewer; every open page gets a `session.py`, which owns a `page.py` (the browser's side is
`page.js`, with `scene.js` for what viser draws itself), a `panel.py` and a `painter.py`. `uploads.py` bounds what a
page may send, `guard.py` who may connect, `host.py` where it listens; `wire.py` mends how viser sends.
"""
