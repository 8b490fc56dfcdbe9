"""The viewer: an avatar that talks in the browser, in step with its audio. It knows viser, but not nerfstudio.

`plugin/viewer.py` hooks it into nerfstudio's viewer. Every open page gets a session (`session.py`) with a connection
(`page.py`; the browser's side is `page.js`, with `scene.js` for what viser renders itself), a control panel
(`panel.py`) and a painter (`painter.py`). `uploads.py` limits the files that a page may send, `access.py` who may
connect, and `viser_patches.py` mends how viser sends.
"""
