# SPDX-License-Identifier: Apache-2.0
# The plug-ins, one for each MPI whose compiler wrapper is here. CMake's own FindMPI finds one MPI; a plug-in is wanted for
# every one.

find_program(LOCKSTEP_MPICC_OPENMPI mpicc.openmpi DOC "Open MPI's compiler wrapper")
find_program(LOCKSTEP_MPICC_MPICH mpicc.mpich DOC "The compiler wrapper of MPICH, or of an MPI made of it")
# where there is one MPI its wrapper has the plain name; only Open MPI's knows this option
find_program(LOCKSTEP_MPICC mpicc DOC "The compiler wrapper of the only MPI")
mark_as_advanced(LOCKSTEP_MPICC_OPENMPI LOCKSTEP_MPICC_MPICH LOCKSTEP_MPICC)
if(LOCKSTEP_MPICC AND NOT (LOCKSTEP_MPICC_OPENMPI AND LOCKSTEP_MPICC_MPICH))
    execute_process(COMMAND ${LOCKSTEP_MPICC} -showme:compile RESULT_VARIABLE other OUTPUT_QUIET ERROR_QUIET)
    if(NOT other AND NOT LOCKSTEP_MPICC_OPENMPI)
        set(LOCKSTEP_MPICC_OPENMPI ${LOCKSTEP_MPICC})
    elseif(other AND NOT LOCKSTEP_MPICC_MPICH)
        set(LOCKSTEP_MPICC_MPICH ${LOCKSTEP_MPICC})
    endif()
endif()

# lks_mpi_plugin(openmpi "Open MPI" wrapper): the plug-in liblockstep_openmpi.so, if there is a wrapper
set(mpi_plugins)
function(lks_mpi_plugin name title wrapper)
    if(NOT wrapper)
        return()
    endif()
    # "gcc -I... -L... -lmpi"
    execute_process(COMMAND ${wrapper} -show OUTPUT_VARIABLE words RESULT_VARIABLE failed ERROR_QUIET)
    if(failed)
        message(WARNING "${wrapper} -show fails: no plug-in for ${title}")
        return()
    endif()
    separate_arguments(words UNIX_COMMAND "${words}")
    list(REMOVE_AT words 0)
    set(folders ${words})
    list(FILTER folders INCLUDE REGEX "^-I")
    list(TRANSFORM folders REPLACE "^-I" "")
    list(FILTER words INCLUDE REGEX "^-(L|l|Wl,)")
    add_library(lockstep_${name} MODULE ${PROJECT_SOURCE_DIR}/src/comm/mpi/plugin/wire_mpi.c)
    set_target_properties(lockstep_${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
    target_include_directories(lockstep_${name} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
    target_include_directories(lockstep_${name} SYSTEM PRIVATE ${folders})
    target_link_libraries(lockstep_${name} PRIVATE lks_flags ${words})
    install(TARGETS lockstep_${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/lockstep)
    set(mpi_plugins ${mpi_plugins} ${title} PARENT_SCOPE)
endfunction()

lks_mpi_plugin(openmpi "Open MPI" "${LOCKSTEP_MPICC_OPENMPI}")
lks_mpi_plugin(mpich "MPICH" "${LOCKSTEP_MPICC_MPICH}")
if(mpi_plugins)
    list(JOIN mpi_plugins ", " mpi_plugins)
    message(STATUS "Clusters: ${mpi_plugins}")
else()
    message(STATUS "Clusters: none, since there is no mpicc; one machine only")
endif()

# where the library looks for them
set_source_files_properties(src/comm/mpi/mpi_plugin.c DIRECTORY src PROPERTIES COMPILE_DEFINITIONS
    "LKS_LIBDIR=\"${CMAKE_INSTALL_LIBDIR}\";LKS_FULL_LIBDIR=\"${CMAKE_INSTALL_FULL_LIBDIR}\"")
