"""What Streamlit runs at each click."""

from ui.page import show

show()
