# Registers every test binary with CTest, and the checks that are scripts.
foreach(room IN LISTS ROOMS)
  if(TARGET ${room}_test)
    add_test(NAME ${room} COMMAND ${room}_test --no-path-filenames=1 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${room} PROPERTIES LABELS unit)
  endif()
endforeach()

find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME layers COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/check_layers.py)
set_tests_properties(layers PROPERTIES LABELS unit)
