"""Joins the rooms of replica into one running member."""
