"""Adaptation: to one picture at test time (`uao`), and to other cameras and people in training (`poseda`)."""
