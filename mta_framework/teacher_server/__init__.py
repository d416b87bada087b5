"""A teacher behind a server: its likeliest tokens on texts, asked for once and kept in the teacher cache."""
