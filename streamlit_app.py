"""The page for people: what is in Production, a form, an answer.

    streamlit run streamlit_app.py

It speaks to the prediction API over HTTP and to nothing else; everything about a use case comes from there.
"""

from ui.page import show

show()
