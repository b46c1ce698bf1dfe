"""Adaptation: to one picture at test time (`uao`; `meshes` for bodies), and to other cameras and people (`poseda`)."""
