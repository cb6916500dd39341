"""The page for people: what is in Production, a form, an answer.

    streamlit run streamlit_app.py

It speaks to the prediction API over HTTP and to nothing else; everything about a use case comes from there.
"""

import streamlit as st
from starlette.middleware import Middleware

from ui.uploads import UploadLimit

app = st.App("ui/script.py", middleware=[Middleware(UploadLimit)])
