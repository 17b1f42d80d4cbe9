"""Figures for paper: what a Plotly figure of ours shows, drawn by matplotlib."""
